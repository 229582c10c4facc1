"""Reads request bodies: one parser and one set of limits for all routes and content types."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, cast

from fastapi import Request

from multimodal_gen.entrypoints.http.bodies.form_body import FormField, parse_form
from multimodal_gen.entrypoints.http.bodies.json_body import (
    VALUE_BYTES,
    Body,
    count_values,
    parse_json,
)
from multimodal_gen.entrypoints.http.bodies.room import SMALL, Hold

MAX_PARSERS = 2
T = TypeVar("T")


async def read_bytes(request: Request) -> Body:
    """Read the body. Other than `request.body`, this keeps no copy, nor joins all at once."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
    return body


async def read_json(request: Request) -> Any:
    """Read and parse a JSON body, of any content type. Raises like `parse_json`."""
    return await json_of(request, await read_bytes(request))


async def json_of(request: Request, body: Body) -> Any:
    """Parse the body of `request` as JSON. Raises like `parse_json`, and QueueFull."""
    return await _parsed(request, body, lambda: _measured(request, body))


async def read_form(request: Request) -> list[FormField]:
    """Read and parse a form. Raises like `parse_form`, and QueueFull."""
    body = await read_bytes(request)
    kind = request.headers.get("content-type", "")
    return await _parsed(request, body, lambda: parse_form(kind, body))


class ParsedRequest(Request):
    """A request whose JSON is parsed here; FastAPI calls this for routes that declare a body."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            # A copy that is bytes would hold up the event loop; FastAPI only passes it on.
            self._body = cast(bytes, await read_bytes(self))
        return self._body

    async def json(self) -> Any:
        return await json_of(self, await self.body())


def _measured(request: Request, body: Body) -> Any:
    hold = hold_of(request)
    if hold is not None:
        hold.take(count_values(body) * VALUE_BYTES)
    return parse_json(body)


async def _parsed(request: Request, body: Body, parse: Callable[[], T]) -> T:
    if len(body) <= SMALL:
        return parse()
    hold = hold_of(request)
    if hold is not None:
        hold.take(len(body))  # of the parsed values, besides the body
    async with request.app.state.parsers:
        return await asyncio.to_thread(parse)


def hold_of(request: Request) -> Hold | None:
    """The memory that counts for the request's body."""
    hold = request.scope.get("body_hold")
    return hold if isinstance(hold, Hold) else None
