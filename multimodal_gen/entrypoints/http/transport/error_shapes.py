"""Error formats of protocols other than OpenAI's."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from multimodal_gen.entrypoints.http.transport.errors import ErrorShape, answer, reshaped
from multimodal_gen.entrypoints.http.transport.parsed_route import ParsedRoute
from multimodal_gen.errors import MultimodalGenError

_ANSWERED = (MultimodalGenError, OSError, HTTPException, RequestValidationError)
NO_NAMES: Mapping[str, str] = MappingProxyType({})


def routes_that_err_as(shape: ErrorShape, names: Mapping[str, str] = NO_NAMES) -> type[APIRoute]:
    """Create a route class for a router: status and headers are those of the app's error response,
    the body is from `shape`. `names` maps SamplingParams fields to the protocol's names."""

    class Route(ParsedRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def shaping(request: Request) -> Response:
                try:
                    return await handle(request)
                except _ANSWERED as error:
                    if isinstance(error, MultimodalGenError):
                        _rename(error, names)
                    return reshaped(answer(request, error), shape)

            return shaping

    return Route


def _rename(error: MultimodalGenError, names: Mapping[str, str]) -> None:
    field = error.field or ""
    if field in names and error.message.startswith(f"{field}="):
        error.field = names[field]
        error.message = names[field] + error.message.removeprefix(field)
