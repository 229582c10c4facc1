"""Loads, unloads and restarts models while others are served."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from multimodal_gen.scheduling.fleet.unloading import LoadedModel, models_to_unload
from multimodal_gen.serving.fleet.engine import Engine
from multimodal_gen.serving.fleet.fleet import Fleet
from multimodal_gen.serving.fleet.served_model import ServedModel

log = logging.getLogger(__name__)
LOOK_S = 0.1
"""Interval at which it is seen whether a model can give up its memory."""
TURN_S = 10.0
"""A model that others wait for keeps its memory so long although it has work: loading takes time,
so that models can't take turns with every request."""


class ModelLoader:
    """Decides which models of a fleet are in memory. Runs on one event loop."""

    def __init__(self, fleet: Fleet, waiting: Callable[[ServedModel], int]) -> None:
        """`waiting` counts the requests that wait for a model."""
        self._fleet = fleet
        self._waiting = waiting
        self._order = asyncio.Lock()
        self._wanted: set[ServedModel] = set()
        """Models that requests wait for, which are not being loaded yet."""
        self._work: set[asyncio.Task[None]] = set()
        self.budget = math.inf
        """Bytes of weights that may be loaded."""

    def start(self) -> None:
        """Load the first models that fit together; the others wait until they are needed."""
        used = 0
        for model in self._fleet.models:
            fits = used + model.size <= self.budget
            if fits or not used:
                used += model.size
                model.load()
            else:
                model.on_demand = True

    def want(self, model: ServedModel) -> None:
        """See to it that the model is loaded, unless it is, for requests that wait for it."""
        if not model.is_loaded and model not in self._wanted:
            self._wanted.add(model)
            self.load(model)

    def load(self, model: ServedModel) -> None:
        """Load it, in place of others if need be, after what it was told to do before."""
        if not model.is_loaded:
            for engine in model.engines:
                engine.failure = None  # it is tried again
        self._spawn(self._in_order(self._load(model, time.monotonic())))

    def unload(self, model: ServedModel) -> None:
        """Give up its memory, once it has no requests; the next one loads it again."""
        self._spawn(self._in_order(self._unload(model)))

    def reload(self, models: Sequence[ServedModel]) -> None:
        """Restart the engines of these models, one after the other, each once it has no requests;
        meanwhile the others serve."""
        self._spawn(self._in_order(self._reload(models)))

    async def close(self) -> None:
        for work in self._work:
            work.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _in_order(self, work: Coroutine[Any, Any, None]) -> None:
        async with self._order:
            await work

    # -- one at a time

    async def _load(self, model: ServedModel, wanted_since: float) -> None:
        if not model.is_loaded:
            while (unload := self._in_the_way(model, wanted_since)) is None:
                await asyncio.sleep(LOOK_S)
            for other in unload:
                await self._unload(other)
            log.info("loading model %s", model.name)
            model.load()
        self._wanted.discard(model)

    def _in_the_way(self, model: ServedModel, wanted_since: float) -> list[ServedModel] | None:
        """Models to unload first; None: none can be unloaded now."""
        others = {m.name: m for m in self._fleet.models if m is not model and m.is_loaded}
        loaded = [
            LoadedModel(m.name, m.size, m.used_at, self._is_busy(m, wanted_since))
            for m in others.values()
        ]
        budget = max(self.budget, model.size)  # one that is too large has everything
        if budget == math.inf:
            return []
        names = models_to_unload(loaded, model.size, int(budget))
        return None if names is None else [others[name] for name in names]

    def _is_busy(self, model: ServedModel, wanted_since: float) -> bool:
        if model.status not in ("ready", "failed"):
            return True
        turn_ended = time.monotonic() - max(wanted_since, model.ready_since) >= TURN_S
        return not turn_ended and bool(model.flying or self._waiting(model))

    async def _unload(self, model: ServedModel) -> None:
        log.info("unloading model %s", model.name)
        model.on_demand = True
        here = [engine for engine in model.engines if engine.is_here]
        await asyncio.gather(*(engine.drain() for engine in here))
        await asyncio.gather(*(engine.stop() for engine in here))
        if self._waiting(model):
            self.want(model)

    async def _reload(self, models: Sequence[ServedModel]) -> None:
        for engine in [each for model in models for each in model.engines if each.is_here]:
            if engine.status not in ("ready", "failed"):
                continue
            log.info("restarting engine %s", engine.name)
            await engine.drain()
            await engine.stop()
            engine.load()
            if not await self._is_up(engine):
                log.error("engine %s did not come back; the others are not restarted", engine.name)
                return

    async def _is_up(self, engine: Engine) -> bool:
        """Wait until it is ready, or can't be."""
        while engine.status == "loading":
            await self._fleet.change()
        return engine.status == "ready"
