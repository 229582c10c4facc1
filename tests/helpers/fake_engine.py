"""An engine that does what the test says, behind the interface of SchedulerClient."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
from http_serving import MODEL

from multimodal_gen.client.request_handle import Output, RequestHandle, Update
from multimodal_gen.errors import Cancelled, EngineDied, MultimodalGenError
from multimodal_gen.messages.evaluation_costs import EvaluationCosts
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.reply import EngineHealth, RankMemory, Usage
from multimodal_gen.messages.request import Req, Runner
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.postprocess.sound import Sound


class FakeEngine:
    """Keeps what was submitted; the test tells what becomes of it, from any thread."""

    def __init__(self, model: ModelInfo = MODEL) -> None:
        self.model = model
        self.costs = EvaluationCosts()
        self.warnings: tuple[RequestWarning, ...] = ()
        """Of every result."""
        self.frames = 1
        self.sound: Sound | None = None
        """Of every result, too."""
        self.num_ranks = 1
        self.died: MultimodalGenError | None = None
        self.alive: dict[str, Req] = {}
        """What it has, in the order in which it came."""
        self.pictures: dict[str, list[Any]] = {}
        self._handles: dict[str, RequestHandle] = {}

    def health(self, timeout: float = 5.0) -> EngineHealth:
        memory = [RankMemory(rank=rank, host_bytes=3 << 30) for rank in range(self.num_ranks)]
        return EngineHealth(running=0, waiting=len(self.alive), memory=tuple(memory))

    @property
    def prompts(self) -> list[str]:
        return [req.params.prompt for req in list(self.alive.values())]

    def submit(self, req: Req, pictures: Any = ()) -> RequestHandle:
        if self.died is not None:
            raise self.died
        self.pictures[req.id] = [*pictures]
        handle = self._handles[req.id] = RequestHandle(req.id, self._cancel)
        # Last: another thread that sees it here may end it at once.
        self.alive[req.id] = req
        return handle

    def step(self, prompt: str, step: int, position: int = 0, runner: Runner | None = None) -> None:
        request_id, total = self._named(prompt)
        update = Update(request_id, step, total, position, 1.0, None, runner=runner)
        self._handles[request_id]._deliver(update)

    def show(self, prompt: str, step: int) -> None:
        """It is so far, and has a preview."""
        request_id, total = self._named(prompt)
        pixels = np.zeros((8, 8, 3), np.uint8)
        self._handles[request_id]._deliver(Update(request_id, step, total, 0, 1.0, pixels))

    def finish(self, prompt: str) -> None:
        """Its pixels say its seed."""
        request_id, _ = self._named(prompt)
        req = self.alive[request_id]
        params = req.params
        seed = params.seed or 0
        pixels = np.full(
            (self.frames, params.height or 8, params.width or 8, 3), seed % 256, np.uint8
        )
        steps = pixels[..., 0].size / 1e6 * (params.num_inference_steps or 1)
        usage = Usage(len(params.prompt.split()), steps)
        warnings = (*req.warnings, *self.warnings)
        output = Output(request_id, pixels, seed, params.fps, {}, [], warnings, usage=usage)
        if self.sound is not None:
            output = replace(output, audio=self.sound.samples, audio_rate=self.sound.rate)
        self._end(request_id, output)

    def fail(self, prompt: str, error: MultimodalGenError) -> None:
        self._end(self._named(prompt)[0], error)

    def die(self, error: MultimodalGenError | None = None) -> None:
        self.died = error or EngineDied("rank 0 was killed by SIGKILL")
        for request_id in list(self.alive):
            self._end(request_id, self.died)

    def _cancel(self, request_id: str) -> None:
        if request_id in self.alive:
            self._end(request_id, Cancelled("cancelled"))

    def _end(self, request_id: str, outcome: Output | MultimodalGenError) -> None:
        self.alive.pop(request_id, None)
        if (handle := self._handles.pop(request_id, None)) is not None:
            handle._deliver(outcome)

    def _named(self, prompt: str) -> tuple[str, int]:
        for request_id, req in list(self.alive.items()):
            if req.params.prompt == prompt:
                return request_id, req.params.num_inference_steps or 1
        raise AssertionError(f"the engine has no {prompt!r}: {self.prompts}")


class EagerEngine(FakeEngine):
    """Makes everything at once."""

    def submit(self, req: Req, pictures: Any = ()) -> RequestHandle:
        handle = super().submit(req, pictures)
        self.finish(req.params.prompt)
        return handle


async def settle() -> None:
    """Let everything that was told be heard."""
    for _ in range(10):
        await asyncio.sleep(0)
