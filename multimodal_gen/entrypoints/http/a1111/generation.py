"""`/sdapi/v1`: generates images, reports progress, and interrupts."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from multimodal_gen.configs.parameters import alternatives
from multimodal_gen.entrypoints.http.a1111.chosen_models import CHECKPOINT, ChosenModels
from multimodal_gen.entrypoints.http.a1111.input_images.pictures import inputs_of
from multimodal_gen.entrypoints.http.a1111.jobs import IDLE, A1111Job, RunningJobs
from multimodal_gen.entrypoints.http.a1111.replies import Reply
from multimodal_gen.entrypoints.http.a1111.schema import (
    Generation,
    ImageToImage,
    TextToImage,
)
from multimodal_gen.entrypoints.http.a1111.translation import to_sampling_params, with_infotext
from multimodal_gen.entrypoints.http.openai.image_maker import ImageMaker
from multimodal_gen.entrypoints.http.openai.image_replies import Encoding, in_base64
from multimodal_gen.entrypoints.http.transport.disconnect import unless_gone
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.errors import Cancelled, InvalidRequest
from multimodal_gen.postprocess.images import QUALITY, ImageFormat, encode_image

_FORMATS: dict[str, ImageFormat] = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
LEAST_PROGRESS = 0.01
"""Minimum progress of a running job; 0 means that there is none."""


def add_generation(
    routes: APIRouter, maker: ImageMaker, chosen: ChosenModels, max_pixels: int
) -> None:
    """Add the routes that run or control jobs."""
    jobs = RunningJobs()

    @routes.post("/txt2img", response_class=Response)
    async def txt2img(body: TextToImage, request: Request) -> Response:
        """Generate images from a prompt, returned as base64. Disconnecting cancels the request."""
        return await make(body, request)

    @routes.post("/img2img", response_class=Response)
    async def img2img(body: ImageToImage, request: Request) -> Response:
        """Generate images from a prompt, an image and an optional mask."""
        return await make(body, request)

    async def make(body: Generation, request: Request) -> Response:
        name = (body.override_settings or {}).get(CHECKPOINT)
        model = await maker.model(chosen.name_for(owner_of(request), name))
        whole = with_infotext(body)
        params, warnings = to_sampling_params(whole, model)
        encoding = _encoding(body, model.name)
        inputs = await asyncio.to_thread(inputs_of, body, params, model, max_pixels)
        task = maker.service.start(
            params, inputs.pixels, owner=owner_of(request), model=model.name, previews=True
        )
        with jobs.under_way(task) as job:
            await _ended(request, job)
            reply = Reply(whole, warnings, job, encoding, inputs.patch)
            content = await asyncio.to_thread(lambda: msgspec.json.encode(reply.content()))
        return Response(content, media_type="application/json")

    @routes.get("/progress")
    async def progress(request: Request, skip_current_image: bool = False) -> dict[str, Any]:
        """Return the progress of the client's oldest job; it never decreases."""
        job = jobs.current(owner_of(request))
        if job is None:
            return {
                "progress": 0.0,
                "eta_relative": 0.0,
                "state": IDLE,
                "current_image": None,
                "textinfo": None,
            }
        place, loading = job.task.progress.queue_position, job.task.progress.loading
        return {
            "progress": max(LEAST_PROGRESS, job.fraction()),
            "eta_relative": job.task.progress.eta_s or 0.0,
            "state": job.state(),
            "current_image": None if skip_current_image else await _seen(job),
            "textinfo": f"loading {job.task.model}" if loading else _place_in_words(place),
        }

    @routes.post("/interrupt")
    async def interrupt(request: Request) -> dict[str, Any]:
        """Stop the client's oldest job. It returns what is done so far."""
        jobs.stop(owner_of(request))
        return {}

    @routes.post("/skip")
    async def skip(request: Request) -> None:
        """Same as interrupt, because all images of a job are made in parallel."""
        jobs.stop(owner_of(request), skip=True)


def _place_in_words(place: int) -> str | None:
    return f"{place} ahead in the queue" if place else None


def _encoding(body: Generation, model: str) -> Encoding:
    """Return the format that the body sets, png by default. Raises InvalidRequest."""
    settings = body.override_settings or {}
    named, quality = settings.get("samples_format") or "png", settings.get("jpeg_quality")
    if not isinstance(named, str) or (format := _FORMATS.get(named.lower())) is None:
        raise InvalidRequest("samples_format", named, f"must be {alternatives(tuple(_FORMATS))}")
    if not isinstance(quality, int | float | None) or not 1 <= (quality or QUALITY) <= 100:
        raise InvalidRequest("jpeg_quality", quality, "must be 1 to 100")
    return Encoding(format, int(quality or QUALITY), model)


async def _ended(request: Request, job: A1111Job) -> None:
    """Wait until the job is done or stopped. Raises the job's error."""
    try:
        await unless_gone(request, job.task)
    except Cancelled:
        if not job.stopped:
            raise


async def _seen(job: A1111Job) -> str | None:
    """Newest preview of a job, in base64."""
    if (pixels := job.task.preview) is None:
        return None
    return in_base64(await asyncio.to_thread(encode_image, pixels, "png"))
