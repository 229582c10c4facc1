"""Serves result files by secret links."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from multimodal_gen.entrypoints.http.transport.errors import documented
from multimodal_gen.serving.storage.results import FileLocation, ResultStore

_HEADERS = {
    "cache-control": "private, max-age=3600",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_MADE: dict[str, Any] = {"content": {kind: {} for kind in ("image/*", "video/*")}}


def file_routes(results: ResultStore) -> APIRouter:
    """`/files`: a link needs no key, because it can't be guessed, and expires."""
    routes = APIRouter()

    @routes.get(
        "/files/{token}/{name}",
        response_class=FileResponse,
        responses={200: _MADE, **documented(404, 410, 503)},
    )
    async def download(token: str, name: str) -> Response:
        """Download a linked result file; redirects to an object store. Returns 410 after it has
        expired."""
        location = await asyncio.to_thread(results.linked, token, name)
        return file_response(location, name, headers=_HEADERS)

    return routes


def file_response(
    location: FileLocation,
    name: str,
    *,
    headers: Mapping[str, str] | None = None,
    filename: str | None = None,
    inline: bool = False,
) -> Response:
    """Response with a result file; `filename` is the one that a browser saves it under."""
    shown = "inline" if inline else "attachment"
    if isinstance(location, Path):
        return FileResponse(
            location, headers=headers, filename=filename, content_disposition_type=shown
        )
    if isinstance(location, str):
        return RedirectResponse(location, headers={"cache-control": "no-store"})
    given = dict(headers or {})
    if filename is not None:
        given["content-disposition"] = f"{shown}; filename*=utf-8''{quote(filename)}"
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(location, headers=given, media_type=kind)


def absolute_url(request: Request, path: str) -> str:
    """URL of `path` on this server as the client of `request` reaches it."""
    return str(request.base_url).rstrip("/") + path
