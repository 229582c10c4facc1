"""`serve`: engines behind an HTTP port, until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.app import create_app
from multimodal_gen.entrypoints.http.transport.connections import uvicorn_options
from multimodal_gen.entrypoints.http.transport.listen import listen, listener_url
from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.launch.device_share import shares_of
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.launch.loading_display import LoadingDisplay
from multimodal_gen.launch.supervisor import EngineSupervisor, Watcher
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.serving.fleet.engine import Engine
from multimodal_gen.serving.fleet.served_model import ServedModel
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.service import Service
from multimodal_gen.serving.storage.data_folder import DataFolder

T = TypeVar("T")
_LAST_ANSWERS_S = 5
"""Time for connections to receive their responses on shutdown."""
_SWITCH_S = 0.0005
"""How long a thread that parses a body may keep the event loop waiting, each time."""


def serve(args: ServerArgs) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status.

    The port is open at once: until the model is loaded, /health returns 503. The first signal lets
    running requests finish within `args.drain_timeout`; the second one does not. Raises
    InvalidRequest for an address that requires an api_key if there is none, and for an unusable
    data folder.
    """
    sys.setswitchinterval(_SWITCH_S)
    try:
        listener = listen(args)
    except OSError as error:
        _complain(f"can't listen on {args.host} port {args.port}: {error.strerror}")
        return 1
    with contextlib.closing(listener), contextlib.closing(DataFolder.of(args)) as data:
        server = HttpServer(args, listener, data.path)
        gc.freeze()  # what is loaded stays; collecting garbage stops everything
        return asyncio.run(server.run())


class HttpServer:
    """The HTTP server in front of engines. `run` is called once."""

    def __init__(self, args: ServerArgs, listener: socket.socket, data: Path) -> None:
        self._args = args
        self._listener = listener
        self._url = listener_url(listener)
        self._service = Service(args)
        self._display = LoadingDisplay()
        self._jobs = Jobs.in_folder(data, self._service, args)
        self._status = 0
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._resuming: asyncio.Task[None] | None = None
        self._announced: list[ServedModel] = []
        config = uvicorn.Config(
            create_app(self._service, self._jobs, args),
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            **uvicorn_options(args.client_timeout),
            timeout_graceful_shutdown=_LAST_ANSWERS_S,
        )
        self._uvicorn = _Uvicorn(config)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        self._start_engines(loop)
        serving = asyncio.create_task(self._uvicorn.serve([self._listener]))
        sweeping = asyncio.create_task(self._jobs.sweep())
        webhooks = self._jobs.webhooks
        telling = None if webhooks is None else asyncio.create_task(webhooks.run())
        await self._stop.wait()
        await self._drain()
        self._service.stop()
        self._uvicorn.should_exit = True
        await asyncio.gather(*(engine.stop() for engine in self._service.fleet.engines))
        await serving
        for task in (sweeping, telling, self._resuming):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await self._jobs.close()
        return self._status

    async def _drain(self) -> None:
        draining = asyncio.create_task(self._service.drain(self._args.drain_timeout))
        hurrying = asyncio.create_task(self._hurry.wait())
        await asyncio.wait((draining, hurrying), return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, hurrying):
            task.cancel()
        await asyncio.wait((draining, hurrying))

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _start_engines(self, loop: asyncio.AbstractEventLoop) -> None:
        fleet = self._service.fleet
        here = [(engine, engine.args) for engine in fleet.engines if engine.args is not None]
        shares = shares_of([args for _, args in here])
        for (engine, args), share in zip(here, shares, strict=True):
            start = functools.partial(EngineProcess.start, environment=share)
            engine.keep = functools.partial(self._keep, loop, args, start)
            engine.load()

    def _keep(
        self,
        loop: asyncio.AbstractEventLoop,
        args: EngineArgs,
        start: Callable[[EngineArgs], EngineProcess],
        engine: Engine,
    ) -> EngineSupervisor:
        return EngineSupervisor(args, _OnLoop(loop, _Reporting(engine, self)), start)

    # -- reports, on the loop

    def show(self, progress: LoadingProgress) -> None:
        self._display.show(progress)

    def is_up(self, engine: Engine) -> None:
        """Resume the jobs of its model, and say that it is served, the first time."""
        self._display.close()
        model = engine.model
        if model is None or model.info is None or model in self._announced:
            return
        self._announced.append(model)
        print(f"multimodal-gen: serving {model.name} at {self._url}", flush=True)
        before, resuming = self._resuming, self._jobs.resume()
        self._resuming = asyncio.create_task(_after(before, resuming))

    def is_lost(self, engine: Engine, error: MultimodalGenError) -> None:
        _complain(f"{self._called(engine)} died and is restarting: {error.message}")

    def has_failed(self, engine: Engine, error: MultimodalGenError, *, for_good: bool) -> None:
        """Report it; without any engine that is left, stop."""
        self._display.close()
        if self._stop.is_set():
            return
        again = "" if for_good else f"{self._called(engine)} could not be started, retrying: "
        _complain(again + error.message)
        if all(each.status == "failed" for each in self._service.fleet.engines):
            self._status = 1
            self._stop.set()

    def _called(self, engine: Engine) -> str:
        several = len([*self._service.fleet.engines]) > 1
        return f"the engine {engine.name}" if several else "the engine"


class _Reporting:
    """Tells an engine what its supervisor reports, and the server."""

    def __init__(self, engine: Engine, server: HttpServer) -> None:
        self._engine = engine
        self._server = server

    def engine_loading(self, progress: LoadingProgress) -> None:
        self._engine.engine_loading(progress)
        self._server.show(progress)

    def engine_up(self, client: SchedulerClient) -> None:
        self._engine.engine_up(client)
        self._server.is_up(self._engine)

    def engine_lost(self, error: MultimodalGenError) -> None:
        self._engine.engine_lost(error)
        self._server.is_lost(self._engine, error)

    def engine_failed(self, error: MultimodalGenError, *, for_good: bool) -> None:
        self._engine.engine_failed(error, for_good=for_good)
        self._server.has_failed(self._engine, error, for_good=for_good)


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


class _Uvicorn(uvicorn.Server):
    """Leaves signals to HttpServer: uvicorn's own handler would end the process by the signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _after(before: asyncio.Task[None] | None, work: Coroutine[Any, Any, None]) -> None:
    if before is not None:
        await asyncio.wait([before])
    await work


def _complain(message: str) -> None:
    print(f"multimodal-gen: {message}", file=sys.stderr, flush=True)
