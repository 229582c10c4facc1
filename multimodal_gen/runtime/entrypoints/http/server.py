"""`serve`: an engine behind an HTTP port, from the first probe until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator

import uvicorn

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.runtime.entrypoints.http.app import create_app
from multimodal_gen.runtime.entrypoints.http.listen import listen, url_of
from multimodal_gen.runtime.launch.supervisor import Engine
from multimodal_gen.runtime.serving.data_folder import DataFolder
from multimodal_gen.runtime.serving.jobs import Jobs
from multimodal_gen.runtime.serving.service import Service

log = logging.getLogger(__name__)
_DRAIN_S = 5


def serve(args: ServerArgs) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status.

    The port is open at once: until the model is loaded /health answers 503. Raises InvalidRequest
    for an address that needs an api_key and has none.
    """
    try:
        listener = listen(args)
    except OSError as error:
        _complain(f"can't listen on {args.host} port {args.port}: {error.strerror}")
        return 1
    return asyncio.run(HttpServer(args, listener).run())


class HttpServer:
    """One engine and the HTTP server in front of it. `run` is called once."""

    def __init__(self, args: ServerArgs, listener: socket.socket) -> None:
        self._args = args
        self._listener = listener
        self._url = url_of(listener)
        self._service = Service(args, replay=False)
        self._engine: Engine | None = None
        self._status = 0
        self._stop = asyncio.Event()
        self._data = DataFolder.of(args)
        self._jobs = Jobs.in_folder(self._data.path, self._service, args)
        config = uvicorn.Config(
            create_app(self._service, self._jobs, args),
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=_DRAIN_S,
        )
        self._uvicorn = _Uvicorn(config)

    async def run(self) -> int:
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._stop.set)
        # Finding the model may mean downloading it, which nothing could interrupt: a daemon.
        threading.Thread(target=self._load, name="load", daemon=True).start()
        serving = asyncio.create_task(self._uvicorn.serve([self._listener]))
        await self._stop.wait()
        self._service.stop()
        self._uvicorn.should_exit = True
        if self._engine is not None:
            await asyncio.to_thread(self._engine.close)
        await serving
        return self._status

    # -- the thread that loads, then waits for a loss

    def _load(self) -> None:
        try:
            self._engine = Engine.start(self._args)
            model = self._engine.wait_ready()
            self._loop.call_soon_threadsafe(self._service.engine_up, self._engine.client)
        except MultimodalGenError as error:
            self._fail(error.message)
        except Exception as error:
            log.exception("starting the engine failed")
            self._fail(f"{type(error).__name__}: {error}")
        else:
            print(f"multimodal-gen: serving {model.name} at {self._url}", flush=True)
            lost = self._engine.wait_lost()
            if lost is not None:
                _complain(f"the engine has ended, every request is refused: {lost.message}")

    def _fail(self, reason: str) -> None:
        if not self._stop.is_set():
            self._status = 1
            _complain(reason)
            self._loop.call_soon_threadsafe(self._stop.set)


class _Uvicorn(uvicorn.Server):
    """Leaves signals to HttpServer: uvicorn's own handling ends the process by the signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _complain(message: str) -> None:
    print(f"multimodal-gen: {message}", file=sys.stderr, flush=True)
