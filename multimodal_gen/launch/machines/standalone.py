"""An engine without a front of its own: fronts elsewhere connect to it."""

from __future__ import annotations

import functools
import re
import signal
import socket
import sys
import threading
from types import FrameType

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.arguments.machine_args import MachineArgs
from multimodal_gen.errors import InvalidRequest, MultimodalGenError
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.launch.loading_display import LoadingDisplay
from multimodal_gen.launch.machines.network import resolve, tcp_address
from multimodal_gen.launch.supervisor import EngineSupervisor
from multimodal_gen.messages.loading import LoadingProgress

_ADDRESS = re.compile(r"tcp://\[?(?P<host>[^\s/]+?)\]?:(?P<port>\d{1,5})")


def run(engine: EngineArgs, machines: MachineArgs, listen: str) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status. Raises InvalidRequest."""
    if machines.key_file is None:
        raise InvalidRequest("key_file", None, "must be given with listen")
    return _Standalone(engine, machines, _free(listen)).run()


def _free(listen: str) -> str:
    """The address to listen on, with names resolved. Raises InvalidRequest if it is none, or is
    another program's now."""
    match = _ADDRESS.fullmatch(listen)
    if match is None or not 0 < int(match["port"]) <= 65535:
        raise InvalidRequest("listen", listen, "must be tcp://HOST:PORT")
    host, port = resolve("listen", match["host"]), int(match["port"])
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise InvalidRequest("listen", listen, f"can't be listened on: {error.strerror}") from error
    return tcp_address(host, port)


class _Standalone:
    """Reports what becomes of the engines on standard error."""

    def __init__(self, engine: EngineArgs, machines: MachineArgs, listen: str) -> None:
        self._listen = listen
        self._display = LoadingDisplay()
        self._status = 0
        self._stop = threading.Event()
        start = functools.partial(EngineProcess.start, machines=machines, listen=listen)
        self._supervisor = EngineSupervisor(engine, self, start)

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._stop.wait()
        self._supervisor.close()
        return self._status

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()

    # -- callbacks of the supervisor

    def engine_loading(self, progress: LoadingProgress) -> None:
        self._display.show(progress)

    def engine_up(self, client: SchedulerClient) -> None:
        self._display.close()
        assert client.model is not None
        _say(f"{client.model.name} is ready for fronts at {self._listen}")

    def engine_lost(self, error: MultimodalGenError) -> None:
        _say(f"the engine died and is restarting: {error.message}")

    def engine_failed(self, error: MultimodalGenError, *, for_good: bool) -> None:
        self._display.close()
        if self._stop.is_set():
            return
        _say(("" if for_good else "the engine could not be started, retrying: ") + error.message)
        if for_good:
            self._status = 1
            self._stop.set()


def _say(message: str) -> None:
    print(f"multimodal-gen: {message}", file=sys.stderr, flush=True)
