"""Error responses as `{"error": {message, type, param, code}}`, which OpenAI's clients read."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from multimodal_gen.entrypoints.http.transport.hints import (
    allowed_values,
    missing,
    no_route,
    wrong_method,
)
from multimodal_gen.errors import (
    HTTP_STATUS,
    EngineNotReady,
    InvalidRequest,
    MultimodalGenError,
    QueueFull,
    StorageFull,
    StorageUnavailable,
)
from multimodal_gen.serving.storage.failures import no_space

log = logging.getLogger(__name__)
_RETRY_AFTER_S = 1.0
_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
}
_PHRASES = {499: "Cancelled", 507: "Out of memory, or no space left to store it"}
_WORTH_RETRYING = (QueueFull, EngineNotReady, StorageUnavailable, StorageFull)
_ALLOWED = {
    "none_required": "server files can't be used over HTTP",
    "extra_forbidden": "is not a field of this object; leave it out",
}
"""Replacements for pydantic's messages."""

ErrorShape = Callable[[dict[str, Any]], dict[str, Any]]
"""Converts OpenAI's `{message, type, param, code}` to a response body."""
NO_SHAPES: Mapping[str, ErrorShape] = MappingProxyType({})


def install_handlers(
    app: FastAPI, shapes: Mapping[str, ErrorShape] = NO_SHAPES, routes: Collection[str] = ()
) -> None:
    """Make `app` return every error, its own and ours, in the envelope, or in the shape of the
    protocol whose paths start with a key of `shapes`. `routes`: those that clients may mean by
    others, as `GET /path`."""
    app.state.error_shapes = shapes
    app.state.known_routes = routes
    for kind in (MultimodalGenError, OSError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _on_error)
    app.add_exception_handler(Exception, _on_bug)


def answer(request: Request, error: Exception) -> Response:
    """Response to a request that failed with `error`, in the envelope. A full disk is named so
    wherever it was met; any other OSError is raised."""
    if isinstance(error, OSError):
        if (full := no_space(error)) is None:
            raise error
        error = full
    if isinstance(error, MultimodalGenError):
        return response_of(error)
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    assert isinstance(error, HTTPException)
    return _of_http(request, error)


def shaped(response: Response, scope: Scope) -> Response:
    """Convert an error response in the envelope for the protocol that owns the path."""
    if "app" in scope:
        for prefix, shape in scope["app"].state.error_shapes.items():
            if scope["path"].startswith(prefix):
                return reshaped(response, shape)
    return response


def reshaped(response: Response, shape: ErrorShape) -> Response:
    """Convert an error response in the envelope; status and headers stay."""
    body = json.dumps(shape(json.loads(bytes(response.body))["error"])).encode("ascii")
    headers = {
        name: value
        for name, value in response.headers.items()
        if name not in ("content-length", "content-type")
    }
    return Response(body, response.status_code, headers, media_type="application/json")


def error_response(
    status: int,
    message: str,
    code: str,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    error = {"message": message, "type": _type(status), "param": param, "code": code}
    # ASCII: a message may contain half a surrogate pair from the request.
    body = json.dumps({"error": error}).encode("ascii")
    return Response(body, status, headers, media_type="application/json")


class ErrorInfo(BaseModel):
    """Details of an error."""

    message: str
    type: str
    param: str | None
    """Field of the request that caused it."""
    code: str


class ErrorReply(BaseModel):
    """Body of every error response."""

    error: ErrorInfo


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Error responses of a route, for the schema."""
    return {
        status: {
            "model": ErrorReply,
            "description": _PHRASES.get(status) or HTTPStatus(status).phrase,
        }
        for status in statuses
    }


def log_and_envelope(error: MultimodalGenError) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and envelope of `error`; log it if it is a server error."""
    status = _status(error)
    if status == 500:
        log.error("a request failed: %s", error.message)
    return status, envelope(error)


def envelope(error: MultimodalGenError) -> dict[str, Any]:
    """Return the content of an error response, without logging."""
    status, message = _status(error), error.message
    if status == 500:
        message = "the request failed inside the server; see the server's log"
    return {"message": message, "type": _type(status), "param": error.field, "code": error.code}


def response_of(error: MultimodalGenError) -> Response:
    """Response to a request that ended with `error`."""
    status, content = log_and_envelope(error)
    headers = {}
    seconds = error.retry_after_s or (_RETRY_AFTER_S if status in (429, 503) else None)
    if seconds is not None:
        headers["retry-after"] = str(max(1, math.ceil(seconds)))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if not isinstance(error, _WORTH_RETRYING):
        headers["x-should-retry"] = "false"
    return error_response(status, content["message"], error.code, error.field, headers)


async def _on_error(request: Request, error: Exception) -> Response:
    return shaped(answer(request, error), request.scope)


def _of_http(request: Request, error: HTTPException) -> Response:
    code, headers = _CODES.get(error.status_code, "http_error"), error.headers
    message, method, path = str(error.detail), request.method, request.url.path
    if error.status_code == 405:
        allowed = _methods(request)
        headers = {"allow": ", ".join(allowed)}
        message = wrong_method(method, path, allowed)
    elif error.status_code == 404 and message == HTTPStatus.NOT_FOUND.phrase:
        message = no_route(method, path, request.app.state.known_routes)
    return error_response(error.status_code, message, code, headers=headers)


def _methods(request: Request) -> list[str]:
    """Methods allowed for the path: starlette only names those of its first route."""
    routes = request.app.routes
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes
        )
    ]


async def _on_bug(request: Request, _: Exception) -> Response:
    # The app's outermost layer answers this one and raises it again, so that it is logged.
    headers = {"x-should-retry": "false"}
    if "request_id" in request.scope:
        headers["x-request-id"] = request.scope["request_id"]
    answer = error_response(500, "internal error", MultimodalGenError.code, headers=headers)
    return shaped(answer, request.scope)


def _of_validation(error: RequestValidationError) -> Response:
    """Report the first error that pydantic found in the body."""
    first: dict[str, Any] = error.errors()[0]
    kind, param = str(first["type"]), _param(first["loc"])
    if kind == "json_invalid":
        return error_response(400, f"the body is not valid JSON: {_where(first)}", kind)
    if param is None:
        message = "the body must be a JSON object, sent with content-type: application/json"
        return error_response(400, message, "invalid_type")
    if kind == "missing":
        message = missing(param, first["input"])
        return error_response(400, message, "missing_required_parameter", param)
    allowed = _ALLOWED.get(kind) or allowed_values(first)
    if isinstance(first["input"], list | dict):  # may be nested too deeply to be shown
        message = f"{param}: {allowed}"
    else:
        message = InvalidRequest(param, first["input"], allowed).message
    code = "invalid_type" if kind.endswith("_type") else InvalidRequest.code
    return error_response(400, message, code, param)


def _where(error: Mapping[str, Any]) -> str:
    """Describe the mistake in JSON, and its place."""
    *_, position = error["loc"]
    place = f", at character {position + 1}" if isinstance(position, int) and position else ""
    return f"{error['ctx']['error']}{place}"


def _param(loc: Sequence[int | str]) -> str | None:
    """`("body", "lora", 0, "name")` as `lora.0.name`; None is the whole body."""
    return ".".join(str(part) for part in loc[1:]) or None


def _status(error: MultimodalGenError) -> int:
    return next(HTTP_STATUS[kind] for kind in type(error).__mro__ if kind in HTTP_STATUS)


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
