"""Starts the engines of a server, and tells the operator what becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Protocol, TypeVar

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.arguments.machine_args import MachineArgs
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.entrypoints.http.memory_budget import free_memory, memory_of
from multimodal_gen.errors import InvalidRequest, MultimodalGenError
from multimodal_gen.launch.device_share import shares_of
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.launch.loading_display import LoadingDisplay
from multimodal_gen.launch.remote_engine import RemoteEngine
from multimodal_gen.launch.supervisor import EngineSupervisor, Watcher
from multimodal_gen.messages.links import LinkKeys
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.serving.fleet.engine import Engine
from multimodal_gen.serving.fleet.served_model import ServedModel
from multimodal_gen.serving.service import Service

T = TypeVar("T")
Starter = Callable[[EngineArgs], EngineProcess]


class FleetListener(Protocol):
    """Hears of a fleet, on the loop."""

    def model_is_known(self, model: ServedModel) -> None:
        """An engine has loaded it for the first time."""

    def all_have_failed(self) -> None:
        """No engine is left."""


class EngineKeeping:
    """Gives each engine of a service what starts it. Runs on one event loop."""

    def __init__(self, service: Service, args: ServerArgs, listener: FleetListener) -> None:
        """Raises InvalidRequest if a model can never fit into the memory budget, and for a file
        without keys."""
        path = args.engine_key_file
        self._keys = None if path is None else LinkKeys.read(user_path(path))
        self._service = service
        self._listener = listener
        self._machines = MachineArgs.of(args)
        self._display = LoadingDisplay()
        self._known: list[ServedModel] = []
        self._silent = False
        if len(service.fleet.models) > 1:
            service.loader.budget = self._budget(args)

    def start(self) -> None:
        """Load the models, as far as they fit."""
        loop = asyncio.get_running_loop()
        here = [(engine, engine.args) for engine in self._service.fleet.engines if engine.args]
        for (engine, args), share in zip(here, shares_of([a for _, a in here]), strict=True):
            start = functools.partial(
                EngineProcess.start, environment=share, machines=self._machines, serves=True
            )
            engine.keep = functools.partial(self._supervise, loop, args, start)
        for engine in self._service.fleet.engines:
            if not engine.is_here:
                engine.keep = functools.partial(self._connect, loop)
                engine.load()
        self._service.loader.start()

    async def close(self) -> None:
        """End all engines."""
        self._silent = True
        await self._service.loader.close()
        await asyncio.gather(*(engine.stop() for engine in self._service.fleet.engines))

    def _budget(self, args: ServerArgs) -> float:
        for model in self._service.fleet.models:
            (engine_args,) = {id(e.args): e.args for e in model.engines if e.args}.values()
            model.estimate = memory_of(engine_args)
        if args.memory_budget_gb is None:
            return free_memory() or float("inf")
        budget = args.memory_budget_gb * 1e9
        largest = max(self._service.fleet.models, key=lambda model: model.size)
        if largest.size > budget:
            allowed = f"must be at least {largest.size / 1e9:.2f}, which {largest.name} needs"
            raise InvalidRequest("memory_budget_gb", args.memory_budget_gb, allowed)
        return budget

    def _supervise(
        self, loop: asyncio.AbstractEventLoop, args: EngineArgs, start: Starter, engine: Engine
    ) -> EngineSupervisor:
        return EngineSupervisor(args, _OnLoop(loop, _Reporting(engine, self)), start)

    def _connect(self, loop: asyncio.AbstractEventLoop, engine: Engine) -> RemoteEngine:
        assert self._keys is not None
        return RemoteEngine(engine.address, self._keys, _OnLoop(loop, _Reporting(engine, self)))

    # -- reports, on the loop

    def show(self, progress: LoadingProgress) -> None:
        self._display.show(progress)

    def is_up(self, engine: Engine) -> None:
        self._display.close()
        model = engine.model
        if model is not None and model.info is not None and model not in self._known:
            self._known.append(model)
            self._listener.model_is_known(model)

    def is_lost(self, engine: Engine, error: MultimodalGenError) -> None:
        again = "died and is restarting" if engine.is_here else "was lost"
        complain(f"{self._called(engine)} {again}: {error.message}")

    def has_failed(self, engine: Engine, error: MultimodalGenError, *, for_good: bool) -> None:
        self._display.close()
        if self._silent:
            return
        what = "started" if engine.is_here else "reached"
        again = "" if for_good else f"{self._called(engine)} could not be {what}, retrying: "
        complain(again + error.message)
        if all(each.status == "failed" for each in self._service.fleet.engines):
            self._listener.all_have_failed()

    def _called(self, engine: Engine) -> str:
        several = len([*self._service.fleet.engines]) > 1
        return f"the engine {engine.name}" if several else "the engine"


class _Reporting:
    """Tells an engine what its supervisor reports, and the operator."""

    def __init__(self, engine: Engine, keeping: EngineKeeping) -> None:
        self._engine = engine
        self._keeping = keeping

    def engine_loading(self, progress: LoadingProgress) -> None:
        self._engine.engine_loading(progress)
        self._keeping.show(progress)

    def engine_up(self, client: SchedulerClient) -> None:
        self._engine.engine_up(client)
        self._keeping.is_up(self._engine)

    def engine_lost(self, error: MultimodalGenError) -> None:
        self._engine.engine_lost(error)
        self._keeping.is_lost(self._engine, error)

    def engine_failed(self, error: MultimodalGenError, *, for_good: bool) -> None:
        self._engine.engine_failed(error, for_good=for_good)
        self._keeping.has_failed(self._engine, error, for_good=for_good)


class _OnLoop:
    """Forwards the supervisor's callbacks from its thread to the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, watcher: Watcher) -> None:
        self._loop = loop
        self._watcher = watcher

    def engine_loading(self, progress: LoadingProgress) -> None:
        self._pass(self._watcher.engine_loading, progress)

    def engine_up(self, client: SchedulerClient) -> None:
        self._pass(self._watcher.engine_up, client)

    def engine_lost(self, error: MultimodalGenError) -> None:
        self._pass(self._watcher.engine_lost, error)

    def engine_failed(self, error: MultimodalGenError, *, for_good: bool) -> None:
        self._pass(functools.partial(self._watcher.engine_failed, for_good=for_good), error)

    def _pass(self, report: Callable[[T], None], what: T) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed.
            self._loop.call_soon_threadsafe(report, what)


def complain(message: str) -> None:
    print(f"multimodal-gen: {message}", file=sys.stderr, flush=True)
