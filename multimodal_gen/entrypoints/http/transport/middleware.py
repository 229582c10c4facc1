"""Handling of every request: id, logging, metrics, HEAD, and a limit on its body."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from multimodal_gen.entrypoints.http.bodies.room import SMALL, Hold, Room
from multimodal_gen.entrypoints.http.transport.errors import answer, shaped
from multimodal_gen.entrypoints.http.transport.owners import owner_name
from multimodal_gen.entrypoints.python.decoding import picture_memory
from multimodal_gen.errors import QueueFull
from multimodal_gen.observability.context import RequestContext, enter, leave, trace_id_of
from multimodal_gen.observability.logging import ACCESS, fields
from multimodal_gen.observability.metrics import Metrics
from multimodal_gen.observability.tracing import Tracing

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_QUIET = frozenset({"/health", "/healthz", "/liveness", "/metrics", "/operator/status"})
"""Frequently polled routes, logged at DEBUG."""
_UNMATCHED = "unmatched"
_AT_ONCE, _MOST_TURNS = 2, 32
"""Large bodies that are read in one round of the event loop, and the most rounds to wait."""
_LEFT = 499
"""Status of a request whose client disconnected before the response."""

access_log = logging.getLogger(ACCESS)


class Observed:
    """Gives every request an id, returned as `x-request-id` (the client's own if it is valid), and
    reports its response to logs, metrics and traces."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics | None = None, tracing: Tracing | None = None
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _SANE_ID.fullmatch(given) else f"req_{secrets.token_hex(16)}"
        scope["request_id"] = request_id
        status = _LEFT

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        token = enter(RequestContext(request_id, trace_id_of(headers.get("traceparent", ""))))
        started = time.perf_counter()
        try:
            with self._counted(), self._traced(scope, lambda: status):
                await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            status = _LEFT  # disconnected in the middle of its body
        except Exception:
            status = 500
            raise
        finally:
            self._tell(scope, status, time.perf_counter() - started)
            leave(token)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self._metrics is None:
            yield
            return
        with self._metrics.http_in_progress.track_inprogress():
            yield

    @contextmanager
    def _traced(self, scope: Scope, status: Callable[[], int]) -> Iterator[None]:
        if self._tracing is None or scope["path"] in _QUIET:
            yield
            return
        method = _method(scope)
        with self._tracing.request(method, Headers(scope=scope)) as span:
            yield
            self._tracing.answered(span, method, _route(scope), status(), owner_name(scope))

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        method, route = _method(scope), _route(scope)
        size = Headers(scope=scope).get("content-length", "")
        if self._metrics is not None:
            received = int(size) if size.isdecimal() else 0
            self._metrics.answered(route, method, status, seconds, received)
        path = scope.get("raw_path", b"").partition(b"?")[0].decode("ascii", "backslashreplace")
        access_log.log(
            logging.DEBUG if route in _QUIET else logging.INFO,
            "%s %s %d in %.3f s",
            method,
            path or route,
            status,
            seconds,
            extra=fields(
                method=method,
                route=route,
                status=status,
                duration_s=round(seconds, 6),
                client=(scope.get("client") or ("",))[0],
            ),
        )


def _method(scope: Scope) -> str:
    return str(scope.get("method", "WEBSOCKET"))


def _route(scope: Scope) -> str:
    """Path template of the route; there are few of them."""
    return getattr(scope.get("route"), "path", None) or _UNMATCHED


class Drained:
    """Reads up to `most` remaining bytes of a body before the response is sent: a client that is
    still sending when the connection closes would see that instead of the response.

    Large bodies are read in turns, so that many at once don't keep the event loop from others.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._large = 0
        """Number of large bodies that are being read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        announced = headers.get("content-length", "0")
        expected = int(announced) if announced.isdecimal() else 0
        if not expected and "transfer-encoding" not in headers:
            return await self._app(scope, receive, send)
        # A client that expects 100-continue does not send unless reading starts.
        more = expected <= self._most and "expect" not in headers
        received, is_large = 0, False

        async def receiving() -> Message:
            nonlocal more, received, is_large
            if is_large:
                await self._take_turns()
            message = await receive()
            received += len(message.get("body", b""))
            more = bool(message.get("more_body"))
            self._large -= is_large
            is_large = more and received > SMALL
            self._large += is_large
            return message

        async def sending(message: Message) -> None:
            until = received + self._most
            while more and received < until and message["type"] == "http.response.start":
                await receiving()
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        finally:
            self._large -= is_large

    async def _take_turns(self) -> None:
        for _ in range(min(self._large // _AT_ONCE, _MOST_TURNS)):
            await asyncio.sleep(0)


class BodyLimit:
    """Returns 413 for a body of more than `limit` bytes, by content-length or actual size, and 429
    while the bodies of other requests fill `room`: where the length is announced before the body is
    read, else as its bytes arrive."""

    def __init__(self, app: ASGIApp, limit: int, room: Room) -> None:
        self._app = app
        self._limit = limit
        self._room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        hold = scope["body_hold"] = Hold(self._room, owner_name(scope))
        try:
            bounded = self._bounded(receive, hold, Headers(scope=scope).get("content-length", ""))
        except (HTTPException, QueueFull) as error:
            return await shaped(answer(Request(scope), error), scope)(scope, receive, send)
        try:
            await self._app(scope, bounded, send)
        finally:
            hold.close()

    def _bounded(self, receive: Receive, hold: Hold, length: str) -> Receive:
        received, room = 0, 0

        def check(size: int) -> None:
            nonlocal room
            if size > self._limit:
                raise HTTPException(413, f"the body must be at most {self._limit} bytes")
            if size > room:
                hold.take(size - room)
                room = size

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            check(received)
            return message

        check(int(length) if length.isdecimal() else 0)
        return receive_bounded


class PictureRoom:
    """Lets the images that a request decodes take room, until nobody holds them any more."""

    def __init__(self, app: ASGIApp, room: Room) -> None:
        self._app = app
        self._room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        owner = owner_name(scope)
        token = picture_memory.set(partial(Hold, self._room, owner))
        try:
            await self._app(scope, receive, send)
        finally:
            picture_memory.reset(token)
