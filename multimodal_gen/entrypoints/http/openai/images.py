"""`POST /v1/images/generations`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from multimodal_gen.entrypoints.http.openai.image_jobs import ImageJob
from multimodal_gen.entrypoints.http.openai.image_maker import ImageMaker
from multimodal_gen.entrypoints.http.openai.image_replies import ImagesReply
from multimodal_gen.entrypoints.http.openai.schema import ImagesRequest
from multimodal_gen.entrypoints.http.transport import forms
from multimodal_gen.entrypoints.http.transport.errors import documented
from multimodal_gen.errors import InvalidRequest

_RAW = ("image/png", "image/jpeg", "image/webp", "application/zip", "text/event-stream")
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": ImagesReply, "content": {kind: {} for kind in _RAW}},
    202: {"model": ImageJob, "description": "The job that was accepted, with run_in_background."},
    **documented(400, 401, 408, 409, 413, 429, 499, 500, 503, 507),
}
"""Responses of the image routes, for the schema."""


def image_routes(maker: ImageMaker) -> APIRouter:
    """Create the route that generates images from prompts."""
    routes = APIRouter()

    @routes.post(
        "/v1/images/generations",
        response_class=Response,
        responses=ANSWERS,
        openapi_extra=forms.body_schema(ImagesRequest),
    )
    async def generate(request: Request) -> Response:
        """Generate images from a prompt; with `stream` as server-sent events."""
        body = await forms.parse_body(request, ImagesRequest)
        model = await maker.model(body.model)
        if "text-to-image" not in model.tasks:
            allowed = f"{model.name} requires an input image: use /v1/images/edits"
            raise InvalidRequest("image", None, allowed)
        return await maker.answer(request, body, "image_generation", model)

    return routes
