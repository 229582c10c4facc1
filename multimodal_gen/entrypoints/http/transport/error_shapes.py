"""Error formats of protocols other than OpenAI's."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from multimodal_gen.entrypoints.http.bodies.reading import ParsedRequest
from multimodal_gen.entrypoints.http.transport.errors import ErrorShape, answer, reshaped
from multimodal_gen.errors import MultimodalGenError

_ANSWERED = (MultimodalGenError, OSError, HTTPException, RequestValidationError)
NO_NAMES: Mapping[str, str] = MappingProxyType({})


def routes_that_err_as(shape: ErrorShape, names: Mapping[str, str] = NO_NAMES) -> type[APIRoute]:
    """Create a route class for a router: status and headers are those of the app's error response,
    the body is from `shape`. `names` maps SamplingParams fields to the protocol's names."""

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def shaping(request: Request) -> Response:
                try:
                    return await handle(ParsedRequest(request.scope, request.receive))
                except _ANSWERED as error:
                    cause = _cause(error)
                    if isinstance(cause, MultimodalGenError):
                        _rename(cause, names)
                    return reshaped(answer(request, cause), shape)

            return shaping

    return Route


def _cause(error: Exception) -> Exception:
    """The error of the body's parser, which FastAPI replaces by one of its own."""
    ours = MultimodalGenError | OSError | RequestValidationError
    return error.__cause__ if isinstance(error.__cause__, ours) else error


def _rename(error: MultimodalGenError, names: Mapping[str, str]) -> None:
    field = error.field or ""
    if field in names and error.message.startswith(f"{field}="):
        error.field = names[field]
        error.message = names[field] + error.message.removeprefix(field)
