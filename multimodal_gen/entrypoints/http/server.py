"""`serve`: engines behind an HTTP port, until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.app import create_app
from multimodal_gen.entrypoints.http.engine_keeping import EngineKeeping, complain
from multimodal_gen.entrypoints.http.transport.connections import uvicorn_options
from multimodal_gen.entrypoints.http.transport.listen import listen, listener_url
from multimodal_gen.serving.fleet.served_model import ServedModel
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.service import Service
from multimodal_gen.serving.storage.data_folder import DataFolder

_LAST_ANSWERS_S = 5
"""Time for connections to receive their responses on shutdown."""
_SWITCH_S = 0.0005
"""How long a thread that parses a body may keep the event loop waiting, each time."""


def serve(args: ServerArgs) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status.

    The port is open at once: until the model is loaded, /health returns 503. The first signal lets
    running requests finish within `args.drain_timeout`; the second one does not. SIGHUP restarts
    all engines, one after the other, each once it has no requests. Raises InvalidRequest for an
    address that requires an api_key if there is none, and for an unusable data folder.
    """
    sys.setswitchinterval(_SWITCH_S)
    try:
        listener = listen(args)
    except OSError as error:
        complain(f"can't listen on {args.host} port {args.port}: {error.strerror}")
        return 1
    with contextlib.closing(listener), _data_folder(args) as folder:
        server = HttpServer(args, listener, folder)
        gc.freeze()  # what is loaded stays; collecting garbage stops everything
        return asyncio.run(server.run())


class HttpServer:
    """The HTTP server in front of engines. `run` is called once."""

    def __init__(self, args: ServerArgs, listener: socket.socket, data: Path | None) -> None:
        """`data` is the folder of jobs, unless the ledger is elsewhere."""
        self._args = args
        self._listener = listener
        self._url = listener_url(listener)
        self._service = Service(args)
        self._engines = EngineKeeping(self._service, args, self)
        if data is None:
            self._jobs = Jobs.shared(self._service, args)
        else:
            self._jobs = Jobs.in_folder(data, self._service, args)
        self._status = 0
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._resuming: asyncio.Task[None] | None = None
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
        fleet, loader = self._service.fleet, self._service.loader
        loop.add_signal_handler(signal.SIGHUP, lambda: loader.reload(fleet.models))
        self._jobs.watch()
        self._engines.start()
        serving = asyncio.create_task(self._uvicorn.serve([self._listener]))
        sweeping = asyncio.create_task(self._jobs.sweep())
        webhooks = self._jobs.webhooks
        telling = None if webhooks is None else asyncio.create_task(webhooks.run())
        await self._stop.wait()
        await self._drain()
        self._service.stop()
        self._uvicorn.should_exit = True
        await self._engines.close()
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

    # -- what becomes of the engines

    def model_is_known(self, model: ServedModel) -> None:
        """Resume its jobs, and say that it is served."""
        print(f"multimodal-gen: serving {model.name} at {self._url}", flush=True)
        if model.info is not None and model.info.sharing:
            print(f"multimodal-gen: {model.info.sharing}", flush=True)
        before, resuming = self._resuming, self._jobs.resume()
        self._resuming = asyncio.create_task(_after(before, resuming))

    def all_have_failed(self) -> None:
        self._status = 1
        self._stop.set()


class _Uvicorn(uvicorn.Server):
    """Leaves signals to HttpServer: uvicorn's own handler would end the process by the signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _after(before: asyncio.Task[None] | None, work: Coroutine[Any, Any, None]) -> None:
    if before is not None:
        await asyncio.wait([before])
    await work


@contextlib.contextmanager
def _data_folder(args: ServerArgs) -> Iterator[Path | None]:
    """This server's folder, if its jobs are kept in one."""
    if args.ledger is not None:
        yield None
        return
    with contextlib.closing(DataFolder.of(args)) as data:
        yield data.path
