"""Keeps a connection to an engine that runs elsewhere."""

from __future__ import annotations

import threading

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.errors import EngineDied, MultimodalGenError
from multimodal_gen.launch.supervisor import FIRST_DELAY_S, LONGEST_DELAY_S, Watcher
from multimodal_gen.messages.links import LinkKeys

WATCH_S = 0.05


class RemoteEngine:
    """Connects until closed: waits for an engine that is not there yet, and connects again to one
    that was lost. The engine itself is its own operator's."""

    def __init__(self, address: str, keys: LinkKeys, watcher: Watcher) -> None:
        self._address = address
        self._keys = keys
        self._watcher = watcher
        self._client: SchedulerClient | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="remote-engine", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Disconnect for good; the engine cancels what it has from here, and goes on."""
        with self._lock:
            self._closing.set()
            client = self._client
        if client is not None:
            client.close()
        self._thread.join()

    def _run(self) -> None:
        delay = 0.0
        while not self._closing.wait(delay):
            was_ready = self._one()
            longer = min(max(2 * delay, FIRST_DELAY_S), LONGEST_DELAY_S)
            delay = FIRST_DELAY_S if was_ready else longer

    def _one(self) -> bool:
        """Connect once. Returns whether the engine was ready."""
        with self._lock:
            if self._closing.is_set():
                return False
            client = self._client = SchedulerClient(
                self._address, keys=self._keys, describe_loss=self._how_it_was_lost
            )
        with client:
            try:
                client.wait_ready(show=self._watcher.engine_loading)
            except Exception as error:
                self._failed(error)
                return False
            self._watcher.engine_up(client)
            while client.died is None and not self._closing.wait(WATCH_S):
                pass
            if not self._closing.is_set():
                self._watcher.engine_lost(client.died or EngineDied(self._how_it_was_lost()))
        return True

    def _failed(self, error: Exception) -> None:
        if self._closing.is_set():
            return
        if not isinstance(error, MultimodalGenError):
            error = EngineDied(f"{type(error).__name__}: {error}")
        self._watcher.engine_failed(error, for_good=False)

    def _how_it_was_lost(self) -> str:
        return f"the connection to {self._address} was lost"
