"""Every error as `{"error": {message, type, param, code}}`, which OpenAI's clients read."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from multimodal_gen.errors import (
    HTTP_STATUS,
    EngineNotReady,
    InvalidRequest,
    MultimodalGenError,
    QueueFull,
)

log = logging.getLogger(__name__)
_RETRY_AFTER_S = 1.0
_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
}
_PHRASES = {499: "Cancelled", 507: "Out of Memory"}
_ALLOWED = {"none_required": "files of the server can't be named over HTTP"}
"""What to say in place of pydantic's words."""


def install_handlers(app: FastAPI) -> None:
    """Have `app` answer every error, its own and ours, in the envelope."""
    app.add_exception_handler(MultimodalGenError, _on_ours)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(Exception, _on_bug)


def error_response(
    status: int,
    message: str,
    code: str,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    error = {"message": message, "type": _type(status), "param": param, "code": code}
    # ASCII: a message may show half a surrogate pair that the caller sent.
    body = json.dumps({"error": error}).encode("ascii")
    return Response(body, status, headers, media_type="application/json")


class ErrorInfo(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    """The field of the request that it is about."""
    code: str


class ErrorReply(BaseModel):
    """How every error is answered."""

    error: ErrorInfo


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Errors that a route may answer with, for the schema."""
    return {
        status: {
            "model": ErrorReply,
            "description": _PHRASES.get(status) or HTTPStatus(status).phrase,
        }
        for status in statuses
    }


def log_and_envelope(error: MultimodalGenError) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and envelope of `error`; log what failed inside the server."""
    status = _status(error)
    if status == 500:
        log.error("a request failed: %s", error.message)
    return status, envelope(error)


def envelope(error: MultimodalGenError) -> dict[str, Any]:
    """Return the content of an error reply; logs nothing."""
    status, message = _status(error), error.message
    if status == 500:
        message = "the request failed inside the server; its log says why"
    return {"message": message, "type": _type(status), "param": error.field, "code": error.code}


def response_of(error: MultimodalGenError) -> Response:
    """The answer to a request that ended with `error`."""
    status, content = log_and_envelope(error)
    headers = {}
    if status in (429, 503):
        seconds = error.retry_after_s or _RETRY_AFTER_S
        headers["retry-after"] = str(max(1, math.ceil(seconds)))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if not isinstance(error, QueueFull | EngineNotReady):
        headers["x-should-retry"] = "false"
    return error_response(status, content["message"], error.code, error.field, headers)


async def _on_ours(_: Request, error: Exception) -> Response:
    assert isinstance(error, MultimodalGenError)
    return response_of(error)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code, headers = _CODES.get(error.status_code, "http_error"), error.headers
    if error.status_code == 405:
        headers = {"allow": ", ".join(_methods(request))}
    return error_response(error.status_code, str(error.detail), code, headers=headers)


def _methods(request: Request) -> list[str]:
    """What may be done with the path: starlette names the methods of its first route only."""
    routes = request.app.routes
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes
        )
    ]


async def _on_bug(request: Request, _: Exception) -> Response:
    # The outermost layer of the app answers this one and raises it again, so that it is logged.
    headers = {"x-should-retry": "false"}
    if "request_id" in request.scope:
        headers["x-request-id"] = request.scope["request_id"]
    return error_response(500, "internal error", MultimodalGenError.code, headers=headers)


async def _on_validation(_: Request, error: Exception) -> Response:
    """The first thing that is wrong with the body, as pydantic found it."""
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = error.errors()[0]
    kind, param = str(first["type"]), _param(first["loc"])
    if kind == "json_invalid":
        return error_response(400, f"the body is not valid JSON: {first['ctx']['error']}", kind)
    if param is None:
        message = "the body must be a JSON object, sent with content-type: application/json"
        return error_response(400, message, "invalid_type")
    if kind == "missing":
        return error_response(400, f"{param} is missing", "missing_required_parameter", param)
    allowed = _ALLOWED.get(kind, first["msg"])
    if isinstance(first["input"], list | dict):  # maybe nested too deeply to be shown
        message = f"{param}: {allowed}"
    else:
        message = InvalidRequest(param, first["input"], allowed).message
    code = "invalid_type" if kind.endswith("_type") else InvalidRequest.code
    return error_response(400, message, code, param)


def _param(loc: Sequence[int | str]) -> str | None:
    """`("body", "lora", 0, "name")` as `lora.0.name`; None is the body as a whole."""
    return ".".join(str(part) for part in loc[1:]) or None


def _status(error: MultimodalGenError) -> int:
    return next(HTTP_STATUS[kind] for kind in type(error).__mro__ if kind in HTTP_STATUS)


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
