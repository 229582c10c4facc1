"""`/openapi.json`, and `/docs`: a readable page that loads nothing from other hosts."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

import msgspec
from fastapi import APIRouter, FastAPI, Response

from multimodal_gen.entrypoints.http.ops.pages import page_headers, page_of

_NEVER_STATUS, _NEVER_NAMES = "422", ("HTTPValidationError", "ValidationError")
"""FastAPI adds these to every schema; here they are returned as 400 in the error envelope."""


def docs_routes(app: FastAPI, *, needs_key: bool) -> APIRouter:
    """Create routes for the schema of `app`, which needs a key if others do, and the open page."""
    routes = APIRouter()
    schema = cache(lambda: msgspec.json.encode(schema_of(app, needs_key=needs_key)))
    html = page_of("docs")
    headers = page_headers(html)

    @routes.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(html, headers=headers, media_type="text/html; charset=utf-8")

    @routes.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        # Generating it takes a while, the first time.
        content = await asyncio.to_thread(schema)
        return Response(content, media_type="application/json")

    return routes


def schema_of(app: FastAPI, *, needs_key: bool) -> dict[str, Any]:
    """FastAPI's schema, corrected: how keys are sent, and no 422."""
    schema = app.openapi()
    for methods in schema["paths"].values():
        for operation in methods.values():
            operation.get("responses", {}).pop(_NEVER_STATUS, None)
    components = schema.setdefault("components", {})
    for name in _NEVER_NAMES:
        components.get("schemas", {}).pop(name, None)
    if needs_key:
        components["securitySchemes"] = {"api_key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"api_key": []}]
    return schema
