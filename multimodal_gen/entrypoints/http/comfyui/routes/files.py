"""File routes: upload and view."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse

from multimodal_gen.entrypoints.http.bodies.form_body import FormFile
from multimodal_gen.entrypoints.http.bodies.reading import read_form
from multimodal_gen.entrypoints.http.comfyui.files import (
    FOLDERS,
    Files,
    Place,
    sane_parts,
)
from multimodal_gen.entrypoints.http.comfyui.routes.schema import FILE, UPLOAD, refusals
from multimodal_gen.entrypoints.http.jobs.files import file_response
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.entrypoints.http.transport.warnings import warning_headers
from multimodal_gen.entrypoints.python.decoding import decode_picture
from multimodal_gen.messages.request_warning import RequestWarning

_CONVERSIONS = ("channel", "preview")
_HEADERS = {"cache-control": "private, no-cache", "x-content-type-options": "nosniff"}


def add_file_routes(routes: APIRouter, files: Files, max_pixels: int) -> None:
    @routes.get("/view", response_class=FileResponse, responses={200: FILE, **refusals(400, 404)})
    async def view(
        request: Request, filename: str, subfolder: str = "", type: str = "output"
    ) -> Response:
        """Return a file of the client, named as in its prompt's history or upload: always as it is
        stored. `x-warnings` names `channel` and `preview`, which would convert it."""
        place = Place(type, subfolder, filename)
        location = await asyncio.to_thread(files.locate, owner_of(request), place)
        if location is None:
            raise HTTPException(404, "no such file")
        asked = [name for name in _CONVERSIONS if name in request.query_params]
        headers = {**_HEADERS, **warning_headers(map(RequestWarning.no_effect, asked))}
        return file_response(location, filename, headers=headers, filename=filename, inline=True)

    @routes.post("/upload/image", openapi_extra=UPLOAD, responses=refusals(400, 413, 429, 503, 507))
    async def upload(request: Request) -> dict[str, str]:
        """Store an image for LoadImage; the reply has its name."""
        form = dict(await read_form(request))
        sent, folder = form.get("image"), form.get("type") or "input"
        subfolder, overwrite = form.get("subfolder") or "", form.get("overwrite")
        if not isinstance(sent, FormFile) or not isinstance(subfolder, str):
            raise HTTPException(400, "image must be a file")
        data, parts = sent.content, sane_parts(sent.name)
        if folder not in FOLDERS or not parts:
            folders = ", ".join(FOLDERS)
            raise HTTPException(400, f"type must be one of {folders}; the file must have a name")
        place = Place(str(folder), "/".join(sane_parts(subfolder)), parts[-1])
        # Refuse a file that is not an image here, not in the prompt that loads it.
        await asyncio.to_thread(decode_picture, data, "image", max_pixels=max_pixels)
        again = overwrite in ("true", "1")
        kept = await asyncio.to_thread(
            files.upload, owner_of(request), place, data, overwrite=again
        )
        return {"name": kept.name, "subfolder": kept.subfolder, "type": kept.folder}
