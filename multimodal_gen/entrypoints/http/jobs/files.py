"""Serves result files by secret links."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse

from multimodal_gen.entrypoints.http.transport.errors import documented
from multimodal_gen.serving.storage.results import Results

_HEADERS = {
    "cache-control": "private, max-age=3600",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_MADE: dict[str, Any] = {"content": {kind: {} for kind in ("image/*", "video/*")}}


def file_routes(results: Results) -> APIRouter:
    """`/files`: a link needs no key, because it can't be guessed, and expires."""
    routes = APIRouter()

    @routes.get(
        "/files/{token}/{name}",
        response_class=FileResponse,
        responses={200: _MADE, **documented(404, 410)},
    )
    async def download(token: str, name: str) -> FileResponse:
        """Download a linked result file. Returns 410 after it has expired."""
        path = await asyncio.to_thread(results.linked, token, name)
        return FileResponse(path, headers=_HEADERS)

    return routes


def absolute_url(request: Request, path: str) -> str:
    """URL of `path` on this server as the client of `request` reaches it."""
    return str(request.base_url).rstrip("/") + path
