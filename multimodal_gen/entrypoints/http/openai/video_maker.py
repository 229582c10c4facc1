"""Answers video requests: as a job, or while the client waits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.http.media.pictures import (
    control_pictures,
    decode_images,
    file_of,
)
from multimodal_gen.entrypoints.http.openai.video_schema import RemixRequest, VideosRequest
from multimodal_gen.entrypoints.http.transport.disconnect import unless_gone
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.entrypoints.http.transport.warnings import warning_headers
from multimodal_gen.entrypoints.python.decoding import decode_mask, decode_picture
from multimodal_gen.entrypoints.python.video_decoding import decode_video
from multimodal_gen.errors import InvalidRequest, MultimodalGenError
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.pictures import NO_PIXELS, Pixels, named_images
from multimodal_gen.messages.request_warning import as_plain
from multimodal_gen.postprocess.files import encode_file
from multimodal_gen.postprocess.metadata import Recipe
from multimodal_gen.postprocess.video import read_frame
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.records import JobRecord
from multimodal_gen.serving.service import Service

_SHOWN_AT_THE_ENDS = ({"image"}, {"last_image"}, {"image", "last_image"})
"""Input images that are the first and the last frame of an image-to-video model's output."""


@dataclass(frozen=True)
class VideoMaker:
    """Answers video requests."""

    service: Service
    jobs: Jobs
    max_input_pixels: int

    async def model(self, name: str | None = None) -> ModelInfo:
        """The model of this name, or the default one; it is loaded if it never was. Raises
        ModelNotFound, InvalidRequest if it does not make videos, EngineNotReady."""
        model = await self.service.known(name)
        if not model.makes_videos:
            raise InvalidRequest(
                "model",
                model.name,
                "makes images; this route makes videos: use /v1/images/generations",
            )
        return model

    async def submit(
        self, request: Request, body: RemixRequest, source: JobRecord | None = None
    ) -> JobRecord:
        """Accept a job; for a remix, `source` is the job it is based on. Raises the error that
        refuses it, with the field names of the body."""
        model = await self.model(body.model or (None if source is None else source.model))
        base = SamplingParams() if source is None else source.request.requests[0].params
        try:
            params = body.sampling_params(model, base)
            pictures = await asyncio.to_thread(self._pictures, body, params, model, source)
            return await self.jobs.submit(
                "video",
                params,
                pictures,
                owner=owner_of(request),
                model=model.name,
                meta=_meta(body, source),
                idempotency_key=request.headers.get("idempotency-key"),
                previews=bool(body.previews),
            )
        except MultimodalGenError as error:
            body.name_as_sent(error)
            raise

    async def make(self, request: Request, body: VideosRequest) -> Response:
        """Make the MP4. Raises like `submit`, and the error of the work; disconnecting cancels
        it."""
        model = await self.model(body.model)
        try:
            params = body.sampling_params(model, SamplingParams())
            pictures = await asyncio.to_thread(self._pictures, body, params, model)
            task = self.service.start(params, pictures, owner=owner_of(request), model=model.name)
            (output,) = await unless_gone(request, task)
        except MultimodalGenError as error:
            body.name_as_sent(error)
            raise
        recipe = Recipe.of(task.requests[0], output, model.name)
        file = await asyncio.to_thread(encode_file, output, ".mp4", recipe)
        headers = warning_headers([*body.warnings(), *output.warnings])
        headers["x-seed"] = str(output.seed)
        return Response(file, media_type="video/mp4", headers=headers)

    def _pictures(
        self,
        body: RemixRequest,
        params: SamplingParams,
        model: ModelInfo,
        source: JobRecord | None = None,
    ) -> Pixels:
        if isinstance(body, VideosRequest):
            return self._sent(body, params, model)
        assert source is not None
        given = source.request.requests[0].pictures
        if not given:
            return NO_PIXELS
        # Inputs are only stored until the job ends; these are frames of the video.
        if given.keys() not in _SHOWN_AT_THE_ENDS or "image-to-video" not in model.tasks:
            allowed = "its images and videos are no longer stored: send them with a new request"
            raise InvalidRequest("video_id", source.id, allowed)
        video = self.jobs.results.read(source.files[0], source.owner)
        return {name: read_frame(video, 0 if name == "image" else -1) for name in given}

    def _sent(self, body: VideosRequest, params: SamplingParams, model: ModelInfo) -> Pixels:
        field, most = body.names_sent()["image_path"], self.max_input_pixels
        pixels: dict[str, Any] = {}
        if images := body.images():
            pixels |= named_images(decode_images(images, field, model, most))
        if body.last_image is not None:
            file = file_of(body.last_image, "last_image")
            pixels["last_image"] = decode_picture(file, "last_image", max_pixels=most)
        if body.video is not None:
            file, frames = file_of(body.video, "video"), params.num_frames
            pixels["video"] = decode_video(file, "video", frames=frames, max_pixels=most)
        if body.mask is not None:
            file = file_of(body.mask, "mask")
            pixels["mask"] = decode_mask(file, "mask", max_pixels=most)
        if body.control:
            pixels |= control_pictures([each.image for each in body.control], model, most)
        return pixels


def _meta(body: RemixRequest, source: JobRecord | None) -> dict[str, object]:
    meta: dict[str, object] = {}
    if body.seconds is not None and body.num_frames is None:
        meta["seconds"] = str(body.seconds)
    if source is not None:
        meta["remixed_from_video_id"] = source.id
    if warnings := body.warnings():
        meta["warnings"] = as_plain(warnings)
    return meta
