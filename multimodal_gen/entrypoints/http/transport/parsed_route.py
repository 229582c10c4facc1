"""Routes that declare a body: FastAPI validates it, and the server's own parser reads it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from multimodal_gen.entrypoints.http.bodies.reading import ParsedRequest
from multimodal_gen.errors import MultimodalGenError


class ParsedRoute(APIRoute):
    """Class of routes for a router. FastAPI's own parser would limit nothing."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def parsing(request: Request) -> Response:
            try:
                return await handle(ParsedRequest(request.scope, request.receive))
            except (HTTPException, RequestValidationError) as error:
                raise _cause(error) from None

        return parsing


def _cause(error: Exception) -> Exception:
    """The error of the body's parser, which FastAPI replaces by one of its own."""
    ours = MultimodalGenError | OSError | RequestValidationError
    return error.__cause__ if isinstance(error.__cause__, ours) else error
