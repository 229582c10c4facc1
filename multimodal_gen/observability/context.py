"""What is known of the request that is being worked on, for logs: follows it through its tasks."""

from __future__ import annotations

import re
from contextvars import ContextVar, Token
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


@dataclass
class RequestContext:
    """The request's names; the owner is known only once its key was seen."""

    request_id: str
    trace_id: str | None = None
    owner: str | None = None


_current: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def current() -> RequestContext | None:
    """The request that this code runs for."""
    return _current.get()


def enter(context: RequestContext) -> Token[RequestContext | None]:
    """Run for `context` from here on, until `leave`."""
    return _current.set(context)


def leave(token: Token[RequestContext | None]) -> None:
    _current.reset(token)


def trace_id_of(traceparent: str) -> str | None:
    """The trace id of a W3C `traceparent` header; None for what is none."""
    match = _TRACEPARENT.fullmatch(traceparent.strip())
    if match is None or not match[1].strip("0") or not match[2].strip("0"):
        return None
    if match[3] is not None and traceparent.startswith("00"):
        return None
    return match[1]
