"""What holds for every request: an id, a key where one is asked for, a bound on the body."""

from __future__ import annotations

import hmac
import re
import secrets

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from multimodal_gen.errors import Unauthorized
from multimodal_gen.runtime.entrypoints.http.errors import error_response, response_of

MAX_BODY_BYTES = 2**20
_DRAINED_BYTES = 32 * 2**20
"""How much of a body that is too large is read and dropped: a client that is still sending when the
connection closes would see that instead of the answer."""
_OPEN_PATHS = frozenset({"/health", "/liveness"})
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestId:
    """Gives every response an `x-request-id`: the client's own where it sent a sane one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get("x-request-id", "") if scope["type"] == "http" else ""
        request_id = given if _SANE_ID.fullmatch(given) else f"req_{secrets.token_hex(16)}"
        scope["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


class ApiKey:
    """Lets nobody past without `Authorization: Bearer <key>`, but for the probes' paths."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _OPEN_PATHS or self._allows(scope):
            return await self._app(scope, receive, send)
        error = Unauthorized("this server asks for an API key: Authorization: Bearer <key>")
        await response_of(error)(scope, receive, send)

    def _allows(self, scope: Scope) -> bool:
        header = Headers(scope=scope).get("authorization", "")
        scheme, _, given = header.partition(" ")
        # Headers are decoded as latin-1, which gives back the bytes that were sent.
        same = hmac.compare_digest(given.strip().encode("latin-1"), self._expected)
        return scheme.lower() == "bearer" and same


class BodyLimit:
    """Answers 413 to a body of more than `limit` bytes, by what it announces or by what comes."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > self._limit:
            await _drain(receive)
            response = error_response(413, self._message, "request_too_large")
            return await response(scope, receive, send)
        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                await _drain(receive)
                raise HTTPException(413, self._message)
            return message

        await self._app(scope, receive_bounded, send)

    @property
    def _message(self) -> str:
        return f"the body must have at most {self._limit} bytes"


async def _drain(receive: Receive) -> None:
    dropped = 0
    while dropped < _DRAINED_BYTES:
        message = await receive()
        dropped += len(message.get("body", b""))
        if not message.get("more_body"):
            return
