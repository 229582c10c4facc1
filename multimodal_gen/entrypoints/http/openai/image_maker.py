"""Answers image requests: directly, as a stream, or as a job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Request, Response

from multimodal_gen.entrypoints.http.jobs.files import absolute_url
from multimodal_gen.entrypoints.http.media.pictures import control_pictures
from multimodal_gen.entrypoints.http.openai.image_jobs import job_reply
from multimodal_gen.entrypoints.http.openai.image_replies import (
    Encoding,
    FinishedImage,
    in_base64,
    raw,
    reply,
)
from multimodal_gen.entrypoints.http.openai.schema import ImageFields
from multimodal_gen.entrypoints.http.openai.streaming import ImageEvents, TaskStream
from multimodal_gen.entrypoints.http.transport.disconnect import unless_gone
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.errors import InvalidRequest, MultimodalGenError
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.pictures import NO_PIXELS, Pixels
from multimodal_gen.messages.request_warning import as_plain
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.service import Service
from multimodal_gen.serving.storage.eviction import unlisted_life
from multimodal_gen.serving.task import Task


@dataclass(frozen=True)
class ImageMaker:
    """Answers image requests. Disconnecting cancels the request."""

    service: Service
    jobs: Jobs
    max_input_pixels: int

    async def model(self, name: str | None = None) -> ModelInfo:
        """The model of this name, or the default one; it is loaded if it never was. Raises
        ModelNotFound, InvalidRequest if it does not make images, EngineNotReady."""
        model = await self.service.known(name)
        if model.makes_videos:
            raise InvalidRequest(
                "model", model.name, "makes videos; this route makes images: use /v1/videos"
            )
        return model

    async def answer(
        self,
        request: Request,
        body: ImageFields,
        kind: str,
        model: ModelInfo,
        pictures: Pixels = NO_PIXELS,
    ) -> Response:
        """Answer a request; `kind` names the events of a stream. Raises the error that refuses or
        ends it, with the field names of the body."""
        body.suit(model)
        try:
            body.check_answer()
            if body.control:
                given = [each.image for each in body.control]
                opened = partial(control_pictures, given, model, self.max_input_pixels)
                pictures = {**pictures, **await asyncio.to_thread(opened)}
            if body.run_in_background:
                return await self._job(request, body, model, pictures)
            encoding = Encoding.of(body, model.name)
            task = self.service.start(
                body.sampling_params(),
                pictures,
                owner=owner_of(request),
                model=model.name,
                previews=bool(body.stream and body.partial_images),
            )
            if body.stream:
                events = ImageEvents(kind, body, encoding, task, request.scope["request_id"])
                return TaskStream(task, events)
            return await self._whole(request, body, encoding, task)
        except MultimodalGenError as error:
            body.name_as_sent(error)
            raise

    async def _whole(
        self, request: Request, body: ImageFields, encoding: Encoding, task: Task
    ) -> Response:
        outputs = await unless_gone(request, task)
        pairs = list(zip(task.requests, outputs, strict=True))
        files = await asyncio.gather(
            *(asyncio.to_thread(encoding.encode, req, output) for req, output in pairs)
        )
        made = [
            FinishedImage(req, output, file)
            for (req, output), file in zip(pairs, files, strict=True)
        ]
        if body.delivery == "file":
            return await asyncio.to_thread(raw, body, encoding, made)
        place = self._linked(request, encoding) if body.delivery == "url" else _inside
        request_id = request.scope["request_id"]
        return await asyncio.to_thread(reply, body, encoding, made, request_id, place)

    def _linked(self, request: Request, encoding: Encoding) -> Callable[[bytes], Mapping[str, Any]]:
        results = self.jobs.results

        def place(file: bytes) -> Mapping[str, Any]:
            owner = owner_of(request).name
            name = results.add(file, f".{encoding.format}", owner)
            expires = int(time.time() + unlisted_life(results.ttl_s))
            return {"url": absolute_url(request, results.link(name, owner)), "expires_at": expires}

        return place

    async def _job(
        self, request: Request, body: ImageFields, model: ModelInfo, pictures: Pixels
    ) -> Response:
        encoding = Encoding.of(body, model.name)
        meta = {
            "suffix": f".{encoding.format}",
            "quality": encoding.quality,
            "warnings": as_plain(body.warnings()),
        }
        record = await self.jobs.submit(
            "image",
            body.sampling_params(),
            pictures,
            owner=owner_of(request),
            model=model.name,
            meta=meta,
            idempotency_key=request.headers.get("idempotency-key"),
            previews=bool(body.previews),
        )
        return job_reply(request, record, self.jobs.results, 202)


def _inside(file: bytes) -> Mapping[str, Any]:
    return {"b64_json": in_base64(file)}
