"""`/openapi.json`, and `/docs`: a readable page that loads nothing from other hosts."""

from __future__ import annotations

import asyncio
from functools import cache

import msgspec
from fastapi import APIRouter, FastAPI, Request, Response

from multimodal_gen.entrypoints.http.ops.docs.schema import schema_of
from multimodal_gen.entrypoints.http.ops.pages import page_headers, page_of


def docs_routes(app: FastAPI, *, needs_key: bool) -> APIRouter:
    """Create routes for the schema of `app`, which needs a key if others do, and the open page."""
    routes = APIRouter()
    schema = cache(lambda: msgspec.json.encode(schema_of(app, needs_key=needs_key)))
    html = page_of("docs")
    headers = page_headers(html)

    @routes.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(html, headers=headers, media_type="text/html; charset=utf-8")

    @routes.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        # Generating it takes a while, the first time.
        content = await asyncio.to_thread(schema)
        return Response(content, media_type="application/json")

    return routes
