"""`POST /v1/images/generations`."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from multimodal_gen.errors import InvalidRequest, MultimodalGenError
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.request import Req
from multimodal_gen.runtime.entrypoints.http.disconnect import unless_gone
from multimodal_gen.runtime.entrypoints.http.owners import owner_of
from multimodal_gen.runtime.entrypoints.http.schema import ImagesRequest
from multimodal_gen.runtime.generation import Output, longest_timings
from multimodal_gen.runtime.postprocess.images import QUALITY, ImageFormat, encode_image
from multimodal_gen.runtime.postprocess.metadata import Recipe
from multimodal_gen.runtime.serving.service import Service


@dataclass(frozen=True)
class Encoding:
    """How pictures are written."""

    format: ImageFormat
    quality: int
    model: str

    def encode(self, req: Req, output: Output) -> str:
        recipe = Recipe(params=req.params, model=self.model)
        file = encode_image(output.pixels[0], self.format, recipe, self.quality)
        return base64.b64encode(file).decode("ascii")


def image_routes(service: Service) -> APIRouter:
    """The route that makes pictures."""
    routes = APIRouter()

    @routes.post("/v1/images/generations", response_class=Response)
    async def generate(body: ImagesRequest, request: Request) -> Response:
        """Pictures of a prompt. A client that goes away takes its request with it."""
        model = service.model
        encoding = Encoding(body.output_format or "png", _quality(body), model.name)
        _check_task(model)
        every = body.sampling_params()
        try:
            task = service.start(every, owner=owner_of(request))
            outputs = await unless_gone(request, task)
        except MultimodalGenError as error:
            body.name_as_sent(error)
            raise
        files = await asyncio.gather(
            *(
                asyncio.to_thread(encoding.encode, req, output)
                for req, output in zip(task.requests, outputs, strict=True)
            )
        )
        reply = _reply(body, encoding, task.requests, list(zip(outputs, files, strict=True)))
        reply |= {"id": request.scope["request_id"]}
        content = await asyncio.to_thread(msgspec.json.encode, reply)
        return Response(content, media_type="application/json")

    return routes


def _check_task(model: ModelInfo) -> None:
    if "text-to-image" not in model.tasks:
        raise InvalidRequest("model", model.name, "makes videos; this route makes pictures")


def _quality(body: ImagesRequest) -> int:
    # Of 0 Pillow makes no file that every reader takes.
    return QUALITY if body.output_compression is None else max(1, body.output_compression)


def _reply(
    body: ImagesRequest, encoding: Encoding, reqs: Sequence[Req], made: list[tuple[Output, str]]
) -> dict[str, Any]:
    """OpenAI's ImagesResponse, and beside it seeds, timings and warnings."""
    outputs = [output for output, _ in made]
    data = [
        {"b64_json": file, "id": output.id, "seed": output.seed, "timings": output.timings}
        for output, file in made
    ]
    reply: dict[str, Any] = {
        "created": int(time.time()),
        "data": data,
        "background": "opaque",
        "output_format": encoding.format,
        "size": f"{reqs[0].params.width}x{reqs[0].params.height}",
        "usage": _USAGE,
        "seeds": [output.seed for output in outputs],
        "timings": longest_timings(outputs),
    }
    if warnings := body.warnings():
        reply["warnings"] = warnings
    return reply


_USAGE: dict[str, Any] = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
"""Clients expect the object; nothing is metered here."""
