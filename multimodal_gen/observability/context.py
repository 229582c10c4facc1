"""Context of the current request for logs; it propagates to the request's asyncio tasks."""

from __future__ import annotations

import re
from contextvars import ContextVar, Token
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


@dataclass
class RequestContext:
    """Ids of a request; the owner is known only after authentication."""

    request_id: str
    trace_id: str | None = None
    owner: str | None = None


_current: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def current() -> RequestContext | None:
    """The request that the current code runs for, or None."""
    return _current.get()


def enter(context: RequestContext) -> Token[RequestContext | None]:
    """Make `context` the current one until `leave`."""
    return _current.set(context)


def leave(token: Token[RequestContext | None]) -> None:
    _current.reset(token)


def trace_id_of(traceparent: str) -> str | None:
    """Trace id of a W3C `traceparent` header; None if it is invalid."""
    match = _TRACEPARENT.fullmatch(traceparent.strip())
    if match is None or not match[1].strip("0") or not match[2].strip("0"):
        return None
    if match[3] is not None and traceparent.startswith("00"):
        return None
    return match[1]
