"""Routes for Hugging Face's `InferenceClient(model=URL)`: takes a prompt or image, returns a
file."""

from __future__ import annotations

import asyncio
from typing import Any
from zlib import crc32

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from multimodal_gen.entrypoints.http.bodies.reading import json_of, read_bytes
from multimodal_gen.entrypoints.http.hugging_face.body import is_json, understood
from multimodal_gen.entrypoints.http.openai.image_maker import ImageMaker
from multimodal_gen.entrypoints.http.openai.image_replies import Encoding
from multimodal_gen.entrypoints.http.transport.disconnect import unless_gone
from multimodal_gen.entrypoints.http.transport.error_shapes import routes_that_err_as
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.entrypoints.http.transport.warnings import in_one_line
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.postprocess.images import QUALITY, ImageFormat

_FORMATS: dict[str, ImageFormat] = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/webp": "webp",
}


_NAMES = {"image_path": "inputs"}


class HuggingFaceFailure(BaseModel):
    """Error in the format that InferenceClient puts into its exception."""

    error: str
    error_type: str
    field: str | None = None


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": HuggingFaceFailure}
    for status in (400, 401, 403, 404, 408, 413, 429, 499, 500, 503, 507)
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "inputs": {"type": "string", "description": "A prompt, or base64."},
                        "parameters": {"type": ["object", "null"]},
                    },
                    "required": ["inputs"],
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_FILES: dict[str, Any] = {
    "description": "The image file, in a format that `accept` allows.",
    "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _FORMATS},
}


def hugging_face_routes(maker: ImageMaker, max_pixels: int) -> APIRouter:
    """text_to_image and image_to_image, at any URL that such a client may use. Input images may
    have up to `max_pixels`."""
    routes = APIRouter(route_class=routes_that_err_as(as_hugging_face, _NAMES), responses=_ERRORS)

    @routes.post("/models/{model:path}", response_class=Response, openapi_extra=_BODY)
    async def infer_by_name(model: str, request: Request) -> Response:
        """Same as `/hf`, for the named model. A server of one model accepts any name."""
        return await answer(request, model)

    @routes.post("/", response_class=Response, openapi_extra=_BODY, responses={200: _FILES})
    @routes.post("/hf", response_class=Response, openapi_extra=_BODY, responses={200: _FILES})
    async def infer(request: Request) -> Response:
        """Generate an image from a prompt or an image. Unknown `parameters` are listed in
        `x-hf-warning`."""
        return await answer(request, None)

    async def answer(request: Request, name: str | None) -> Response:
        model = await maker.model(name)
        body = await read_bytes(request)
        given = await json_of(request, body) if is_json(body) else None
        asked = await asyncio.to_thread(understood, body, given, model, max_pixels)
        del body, given  # not needed while the image is generated
        encoding = Encoding(_format(request.headers.get("accept", "")), QUALITY, model.name)
        task = maker.service.start(
            asked.params, asked.pictures, owner=owner_of(request), model=model.name
        )
        (output,) = await unless_gone(request, task)
        file = await asyncio.to_thread(encoding.encode, task.requests[0], output)
        headers = {"x-seed": str(output.seed)}
        response = Response(file, media_type=encoding.media_type, headers=headers)
        for warning in dict.fromkeys((*asked.warnings, *output.warnings)):
            _warn(response, warning)
        return response

    return routes


def _warn(response: Response, warning: RequestWarning) -> None:
    """Add a warning, with a topic of its own: clients show only the first of each topic."""
    line = in_one_line(warning.text)
    response.headers.append("x-hf-warning", f"{crc32(line.encode()):08x}; {line}")


def as_hugging_face(error: dict[str, Any]) -> dict[str, Any]:
    return {"error": error["message"], "error_type": error["code"], "field": error["param"]}


def _format(accept: str) -> ImageFormat:
    """Available format that the client prefers; PNG by default."""
    liked = sorted(filter(None, map(_liking, accept.split(","))), key=lambda kind: -kind[1])
    return next((_FORMATS[kind] for kind, weight in liked if weight > 0), "png")


def _liking(part: str) -> tuple[str, float] | None:
    kind, *options = (word.strip().lower() for word in part.split(";"))
    weights = [option[2:] for option in options if option.startswith("q=")]
    try:
        weight = float(weights[0]) if weights else 1.0
    except ValueError:
        return None
    return (kind, weight) if kind in _FORMATS else None
