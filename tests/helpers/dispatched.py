"""A service whose engines are played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fake_engine import FakeEngine, settle
from http_serving import MODEL

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.serving.dispatch.dispatcher import QueueLimits
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.service import Service
from multimodal_gen.serving.task import Task

ANNE, BOB = Owner("anne"), Owner("bob")


class Front:
    """A service whose engines are the test's."""

    def __init__(
        self, args: ServerArgs | None = None, model: ModelInfo = MODEL, **limits: Any
    ) -> None:
        self._model = model
        self.service = Service(args or ServerArgs(), QueueLimits(**limits))
        self.engine = FakeEngine()

    def up(self) -> None:
        self.engine = FakeEngine(self._model)
        next(self.service.fleet.engines).engine_up(self.engine)  # type: ignore[arg-type]

    async def die(self) -> None:
        self.engine.die()
        await settle()
        assert self.engine.died is not None
        next(self.service.fleet.engines).engine_lost(self.engine.died)

    async def replace(self) -> None:
        await self.die()
        self.up()
        await settle()

    def ask(self, prompt: str, owner: Owner = ANNE, n: int = 1, **params: Any) -> Task:
        given = SamplingParams(prompt=prompt, num_outputs_per_prompt=n, seed=5, **params)
        return self.service.start(given, owner=owner)


def run(
    test: Callable[[Front], Awaitable[None]], args: ServerArgs | None = None, **limits: Any
) -> None:
    async def whole() -> None:
        front = Front(args, **limits)
        front.up()
        await test(front)

    asyncio.run(whole())


async def error_of(task: Task) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        await task.wait()
    return caught.value
