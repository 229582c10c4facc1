"""Error formats of protocols other than OpenAI's."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from multimodal_gen.errors import MultimodalGenError

Shape = Callable[[dict[str, Any]], dict[str, Any]]
"""Converts OpenAI's `{message, type, param, code}` to a response body."""

NO_NAMES: Mapping[str, str] = MappingProxyType({})


def routes_that_err_as(shape: Shape, names: Mapping[str, str] = NO_NAMES) -> type[APIRoute]:
    """Create a route class for a router: status and headers are those of the app's error response,
    the body is from `shape`. `names` maps SamplingParams fields to the protocol's names."""

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def shaping(request: Request) -> Response:
                try:
                    return await handle(request)
                except (MultimodalGenError, HTTPException, RequestValidationError) as error:
                    if isinstance(error, MultimodalGenError):
                        _rename(error, names)
                    return _shaped(await _answered(request, error), shape)

            return shaping

    return Route


def _rename(error: MultimodalGenError, names: Mapping[str, str]) -> None:
    field = error.field or ""
    if field in names and error.message.startswith(f"{field}="):
        error.field = names[field]
        error.message = names[field] + error.message.removeprefix(field)


async def _answered(request: Request, error: Exception) -> Response:
    """Response of the app to the error."""
    handlers = request.app.exception_handlers
    handler = next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)
    answer: Response = await handler(request, error)
    return answer


def _shaped(answer: Response, shape: Shape) -> Response:
    body = json.dumps(shape(json.loads(bytes(answer.body))["error"])).encode("ascii")
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name not in ("content-length", "content-type")
    }
    return Response(body, answer.status_code, headers, media_type="application/json")
