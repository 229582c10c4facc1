"""Starts an engine, and a new one whenever it is lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.errors import EngineDied, MultimodalGenError
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.messages.loading import LoadingProgress

log = logging.getLogger(__name__)
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 10.0
HEALTHY_S = 60.0
"""After an engine lived this long, the next one starts without a delay."""


class Watcher(Protocol):
    """Receives engine state changes, on the supervisor's thread."""

    def engine_loading(self, progress: LoadingProgress) -> None: ...
    def engine_up(self, client: SchedulerClient) -> None: ...
    def engine_lost(self, error: MultimodalGenError) -> None: ...
    def engine_failed(self, error: MultimodalGenError, *, for_good: bool) -> None: ...


class EngineSupervisor:
    """Keeps an engine running until closed, restarting it whenever it is lost.

    Gives up if the first load fails for a reason other than a rank's death.
    """

    def __init__(
        self,
        args: EngineArgs,
        watcher: Watcher,
        start: Callable[[EngineArgs], EngineProcess] = EngineProcess.start,
    ) -> None:
        self._args = args
        self._watcher = watcher
        self._start = start
        self._engine: EngineProcess | None = None
        self._ever_ready = False
        self._lock = threading.Lock()
        self._closing = threading.Event()
        # Finding the model may mean an uninterruptible download, so the thread is a daemon.
        self._thread = threading.Thread(target=self._run, name="engine-supervisor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the engine for good."""
        with self._lock:
            self._closing.set()
            engine = self._engine
        if engine is not None:
            engine.close()

    def _run(self) -> None:
        delay = 0.0
        while not self._closing.wait(delay):
            lived_s = self._one()
            if lived_s is None:
                return
            longer = min(max(2 * delay, FIRST_DELAY_S), LONGEST_DELAY_S)
            delay = 0.0 if lived_s > HEALTHY_S else longer

    def _one(self) -> float | None:
        """Run one engine. Returns the seconds it was ready, or None if no other is to follow."""
        try:
            engine = self._begun()
        except Exception as error:
            return self._failed(error)
        with engine:
            try:
                engine.wait_ready(show=self._watcher.engine_loading)
            except Exception as error:
                return self._failed(error)
            self._ever_ready, ready_at = True, time.monotonic()
            self._watcher.engine_up(engine.client)
            lost = engine.wait_lost()
            if lost is None:
                return None
            self._watcher.engine_lost(lost)
            return time.monotonic() - ready_at

    def _begun(self) -> EngineProcess:
        engine = self._start(self._args)
        with self._lock:
            self._engine = engine
            if not self._closing.is_set():
                return engine
        engine.close()
        raise EngineDied("closed while starting")

    def _failed(self, error: Exception) -> float | None:
        if self._closing.is_set():
            return None
        for_good = not self._ever_ready and not isinstance(error, EngineDied)
        self._watcher.engine_failed(_ours(error), for_good=for_good)
        return None if for_good else 0.0


def _ours(error: Exception) -> MultimodalGenError:
    if isinstance(error, MultimodalGenError):
        return error
    log.error("starting the engine failed", exc_info=error)
    return MultimodalGenError(f"{type(error).__name__}: {error}")
