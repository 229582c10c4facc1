"""Authentication: sets `request.state.owner` for every request.

A key is sent as `Authorization: Bearer <key>`; under /sdapi also as the password of HTTP Basic,
which A1111's clients support. A browser's WebSocket can't send headers: it offers the subprotocols
`multimodal_gen` and `bearer.<key in base64url>`. (Pages read server-sent events with fetch, which
can.) Keys in queries or cookies are ignored: those end up in logs and histories, and are sent with
requests from other sites.

No key is needed for health checks, the pages (whose own requests need it), and unguessable links.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Collection

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from multimodal_gen.entrypoints.http.transport.errors import response_of, shaped
from multimodal_gen.entrypoints.http.transport.key_ring import KeyRing
from multimodal_gen.errors import Forbidden, MultimodalGenError, Unauthorized
from multimodal_gen.observability.context import current
from multimodal_gen.serving.owner import Owner

_OPEN = frozenset({"/health", "/liveness", "/healthz"})
_OPEN_PAGES = re.compile(r"/|/docs|/operator|/favicon\.ico|/playground(/.*)?|/files/[^/]+/[^/]+")
"""Only for reading: `POST /` is Hugging Face's."""
_BASIC = re.compile(r"/sdapi(/.*)?")
_SUBPROTOCOL, _BEARER = "multimodal_gen", "bearer."
_POLICY_VIOLATION = 1008


class Keys:
    """Authenticates requests and attaches the key's owner."""

    def __init__(self, app: ASGIApp, ring: KeyRing, origins: Collection[str] = ()) -> None:
        """`origins`: pages that may use a server without keys."""
        self._app = app
        self._ring = ring
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        owner = Owner()
        try:
            owner = self._owner(scope)
        except MultimodalGenError as error:
            if not _is_open(scope):
                return await _refuse(error, scope, receive, send)
        scope.setdefault("state", {})["owner"] = owner
        if (context := current()) is not None:
            context.owner = owner.name
        if scope["type"] == "websocket":
            send = _answering_subprotocol(scope, send)
        await self._app(scope, receive, send)

    def _owner(self, scope: Scope) -> Owner:
        given = _given(scope)
        if given is not None and (owner := self._ring.owner_of(given)) is not None:
            return owner
        if self._ring.guards:
            raise Unauthorized(_what_is_needed(scope, given))
        _check_origin(scope, self._origins)
        return Owner()


def admin_only(request: Request) -> None:
    """Dependency of administrative routes. Raises Forbidden."""
    if not request.state.owner.admin:
        raise Forbidden(
            "administrative route: requires the server's admin_key, which the environment "
            "variable MULTIMODAL_GEN_ADMIN_KEY sets"
        )


def operator_only(request: Request) -> None:
    """Dependency of what only the operator may see. Raises Forbidden."""
    if not request.state.owner.admin:
        raise Forbidden(
            "only the operator may see this: send the server's admin_key, which the environment "
            "variable MULTIMODAL_GEN_ADMIN_KEY sets"
        )


def _given(scope: Scope) -> bytes | None:
    """Key sent with the request."""
    header = Headers(scope=scope).get("authorization", "")
    scheme, _, credentials = header.partition(" ")
    # Headers are decoded as latin-1; encoding restores the bytes that were sent.
    sent = credentials.strip().encode("latin-1")
    if scheme.lower() == "bearer":
        return sent
    if scheme.lower() == "basic" and _BASIC.fullmatch(scope["path"]):
        return _decoded(sent).partition(b":")[2]
    for offered in scope.get("subprotocols", ()):
        if offered.startswith(_BEARER):
            return _decoded(offered.removeprefix(_BEARER).encode("ascii", "replace"))
    return None


def _decoded(text: bytes) -> bytes:
    """Decode base64 of either alphabet, padded or not; empty if it is invalid."""
    try:
        return base64.b64decode(text.translate(_STANDARD) + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return b""


def _what_is_needed(scope: Scope, given: bytes | None) -> str:
    """Return the way to send a key, for a client that sent none or another."""
    header = "Authorization: Bearer <key>"
    if given:
        return f"the API key is not one of this server's: send one of them as {header}"
    headers = Headers(scope=scope)
    if "authorization" in headers:
        return f"API key required: the header must be {header}"
    other = next((name for name in _OTHER_HEADERS if name in headers), None)
    if other is not None:
        return f"API key required: send it as {header}, not as {other}"
    return f"API key required: {header}"


_OTHER_HEADERS = ("x-api-key", "api-key", "x-goog-api-key")
_STANDARD = bytes.maketrans(b"-_", b"+/")


def _is_open(scope: Scope) -> bool:
    path: str = scope["path"]
    if path in _OPEN:
        return True
    reads = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
    return reads and _OPEN_PAGES.fullmatch(path) is not None


def _check_origin(scope: Scope, allowed: Collection[str]) -> None:
    """Without keys, pages of sites that are not allowed must not reach the server through a
    visitor's browser, even by a host name that resolves to this machine. Raises Forbidden."""
    headers = Headers(scope=scope)
    host, origin = headers.get("host", ""), headers.get("origin")
    if host and not _is_local(host):
        why = f"a server without keys only accepts its address or localhost, not {host[:100]!a}"
        raise Forbidden(f"{why}: set api_key")
    if origin is None or origin in allowed or "*" in allowed:
        return
    if origin.partition("://")[2].lower() != host.lower():
        why = f"pages of {origin[:100]!a} may not use it: set api_key or allowed_origins"
        raise Forbidden(why)


def _is_local(host: str) -> bool:
    """True if a Host header is an address or localhost: no other name can be trusted."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _refuse(error: MultimodalGenError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await shaped(response_of(error), scope)(scope, receive, send)
    else:
        await receive()
        reason = error.message[:100]
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": reason})


def _answering_subprotocol(scope: Scope, send: Send) -> Send:
    """Answer with an offered subprotocol, as browsers require, but not with the key."""
    offers = scope.get("subprotocols", [])
    scope["subprotocols"] = [each for each in offers if not each.startswith(_BEARER)]
    if _SUBPROTOCOL not in offers:
        return send

    async def answering(message: Message) -> None:
        if message["type"] == "websocket.accept" and not message.get("subprotocol"):
            message["subprotocol"] = _SUBPROTOCOL
        await send(message)

    return answering
