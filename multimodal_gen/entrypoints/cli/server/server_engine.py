"""A running server in the place of an engine: requests are jobs that it makes."""

from __future__ import annotations

import asyncio
import io
import sys
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import msgspec

from multimodal_gen.client.request_handle import Output
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.second_pass import expected_steps
from multimodal_gen.entrypoints.cli.running.result_source import CheckedRequest
from multimodal_gen.entrypoints.cli.server.bodies import image_request, video_request
from multimodal_gen.entrypoints.cli.server.connection import ServerConnection
from multimodal_gen.entrypoints.python.generation_result import GenerationResult, Progress
from multimodal_gen.errors import EngineNotReady, InvalidRequest, MultimodalGenError, from_wire
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.reply import Evaluations
from multimodal_gen.messages.request_warning import from_plain

MAX_IMAGES = 10
"""Of one job."""
_POLL_S = 1.0
_PASSING = ("loading", "starting", "restart")
"""Words of reasons that pass."""
_ENDED = ("completed", "failed", "cancelled")
_QUIET_S = 5.0
"""Time without events after which a job is asked about, in case that they are lost."""


class ServerEngine:
    """Sends requests to a server, and follows them by its stream of events."""

    def __init__(self, connection: ServerConnection, model: str | None) -> None:
        """`model` is one of the server's; None is its first."""
        self._connection = connection
        self._asked = {} if model is None else {"model": model}
        self._model: ModelInfo | None = None
        self._events: defaultdict[str, asyncio.Queue[dict[str, Any]]] = defaultdict(asyncio.Queue)

    def wait_ready(self) -> ModelInfo:
        """Return the model's description, once it is loaded. Raises MultimodalGenError."""
        described = self._described()
        if (asked := self._asked.get("model")) not in (None, described.get("name")):
            allowed = ", ".join(described.get("models", ()))
            raise InvalidRequest(
                "model_path", asked, f"the server has no such model; it has {allowed}"
            )
        try:
            self._model = msgspec.convert(described, ModelInfo)
        except msgspec.ValidationError as error:
            said = f"{self._connection.url} is of another version: {error}"
            raise MultimodalGenError(said) from error
        return self._model

    def _described(self) -> dict[str, Any]:
        for tries in count():
            try:
                return self._connection.read("/model_info", **self._asked)
            except EngineNotReady as error:
                if not any(word in error.message for word in _PASSING):
                    raise
            if not tries:
                said = f"multimodal-gen: {self._connection.url} is loading its model"
                print(said, file=sys.stderr, flush=True)
            time.sleep(_POLL_S)
        raise AssertionError

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the server's events meanwhile."""
        async with self._connection:
            following = asyncio.create_task(self._follow())
            try:
                yield
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    async def stream(
        self, request: CheckedRequest
    ) -> AsyncGenerator[Progress | GenerationResult, None]:
        """Yield progress, then the result. Leaving deletes the jobs that have not ended. Raises
        MultimodalGenError."""
        results: list[GenerationResult] = []
        done = 0
        for part in _parts(request, 1 if self._makes_videos else MAX_IMAGES):
            job_id = await self._submit(part)
            async with aclosing(self._job(job_id, part.params)) as events:
                async for event in events:
                    if isinstance(event, GenerationResult):
                        results.append(event)
                    else:
                        yield replace(event, step=done + event.step)
            done += expected_steps(part.params) * part.params.num_outputs_per_prompt
        outputs = tuple(output for result in results for output in result.outputs)
        yield replace(results[0], outputs=outputs)

    @property
    def _makes_videos(self) -> bool:
        assert self._model is not None
        return self._model.makes_videos

    async def _submit(self, request: CheckedRequest) -> str:
        make = video_request if self._makes_videos else image_request
        path, body = await asyncio.to_thread(make, request)
        job: str = (await self._connection.post(path, {**body, **self._asked}))["id"]
        return job

    async def _job(
        self, job_id: str, params: SamplingParams
    ) -> AsyncGenerator[Progress | GenerationResult, None]:
        events, ended = self._events[job_id], False
        try:
            while not ended:
                job = await self._next(job_id, events)
                if job["type"] == "job.progress":
                    yield _progress(job)
                ended = job.get("job", {}).get("status") in _ENDED
            yield await self._result(job["job"], params)
        finally:
            del self._events[job_id]
            if not ended:
                await self._connection.delete(f"/v1/jobs/{job_id}")

    async def _next(self, job_id: str, events: asyncio.Queue[dict[str, Any]]) -> dict[str, Any]:
        """The next event; after a while without any, the job itself."""
        try:
            return await asyncio.wait_for(events.get(), _QUIET_S)
        except TimeoutError:
            return {"type": "job", "job": await self._connection.get(f"/v1/jobs/{job_id}")}

    async def _follow(self) -> None:
        """Hand out events; once there are none, jobs are asked about one by one."""
        async for event in self._connection.events("/v1/jobs/events"):
            job_id = event.get("id") or event.get("job", {}).get("id")
            if job_id is not None and event["type"] != "job.preview":
                self._events[job_id].put_nowait(event)

    async def _result(self, job: Mapping[str, Any], params: SamplingParams) -> GenerationResult:
        if (error := job["error"]) is not None:
            raise from_wire(error["code"], error["message"], error["param"], None)
        if any(output["url"] is None for output in job["outputs"]):
            raise MultimodalGenError("the server has deleted the result already")
        warnings = tuple(from_plain(job["warnings"]))
        made = []
        for output in job["outputs"]:
            file = await self._connection.download(output["url"])
            decode = _video if self._makes_videos else _image
            decoded = await asyncio.to_thread(decode, file, params)
            told = {name: output[name] for name in ("seed", "revised_prompt")}
            told["evaluations"] = msgspec.convert(output["evaluations"], Evaluations | None)
            made.append(replace(decoded, id=job["id"], warnings=warnings, **told))
        return GenerationResult(tuple(made), params, job["model"], tuple(job["pictures"]))


def _parts(request: CheckedRequest, most: int) -> Iterator[CheckedRequest]:
    """The request as several of at most so many outputs."""
    params = request.params
    assert params.seed is not None
    for first in range(0, params.num_outputs_per_prompt, most):
        outputs = min(most, params.num_outputs_per_prompt - first)
        part: dict[str, Any] = {"seed": params.seed + first, "num_outputs_per_prompt": outputs}
        asked, resolved = request.asked.updated(**part), params.updated(**part)
        yield replace(request, asked=asked, params=resolved)


def _progress(event: Mapping[str, Any]) -> Progress:
    return Progress(event["step"], event["total"], event["eta_s"], event["phase"])


def _image(file: bytes, params: SamplingParams) -> Output:
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(file), formats=("PNG",)) as image:
        pixels = np.asarray(image.convert("RGB"))
    return Output("", pixels[None], 0, None, {}, [])


def _video(file: bytes, params: SamplingParams) -> Output:
    import numpy as np

    frames = np.empty((params.num_frames or 1, 0, 0, 3), np.uint8)
    return Output("", frames, 0, params.fps, {}, [], file=file)
