"""Keeps slow, silent or disconnected clients from blocking others.

uvicorn waits for a request's headers and body without a limit. Here a client that is sending has a
deadline, which each byte of a body extends a little; and when there are more connections than the
process may have files, the one waiting longest for its client is closed. (Clients that don't read
responses are detected by the kernel: see `listen`.)
"""

from __future__ import annotations

import asyncio
import resource
from functools import partial
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

MAX_HEADER_BYTES = 32 * 2**10
KEEP_ALIVE_S = 75
"""Longer than proxies keep connections, so that none sends a request into one that is closing."""
WEBSOCKETS: dict[str, Any] = {
    "ws": "websockets-sansio",
    "ws_max_size": 2**16,
    "ws_per_message_deflate": False,
}
"""Clients send little on them, and images don't compress."""
_MIN_BYTES_PER_S = 2048
_WANTED_FILES = 65536
_MAX_BACKLOG = 1024
_OTHER_FILES = 192
"""Files other than connections: sockets to ranks, the ledger, results being sent."""


class Waiting:
    """Connections waiting for data from their client, longest first, with their deadlines."""

    def __init__(self, timeout: float, capacity: int) -> None:
        self.timeout = timeout
        self.capacity = capacity
        self.connections: dict[PatientProtocol, None] = {}

    def make_room(self, alive: int) -> None:
        """Close the longest-waiting one if the number of connections, `alive`, is too high."""
        if alive > self.capacity and self.connections:
            oldest = next(iter(self.connections))
            del self.connections[oldest]
            oldest.transport.close()


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with deadlines for data from the client."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        waiting: Waiting,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._waiting = waiting
        self._deadline: float | None = None
        self._alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waiting.connections[self] = None
        self._waiting.make_room(len(self.connections))
        self._expect(0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            self._forget()
        elif self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._expect(len(data))
        else:
            self._forget()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and self.conn.their_state is h11.IDLE:
            self._waiting.connections[self] = None

    def _expect(self, received: int) -> None:
        """Set the deadline for more data: soon after the last, and at more than a minimum rate."""
        now = self.loop.time()
        if self._deadline is None:
            self._deadline = now + self._waiting.timeout
        elif self.conn.their_state is h11.SEND_BODY and self.conn.our_state is not h11.DONE:
            credit = received / _MIN_BYTES_PER_S
            self._deadline = min(self._deadline + credit, now + self._waiting.timeout)
        if self._alarm is None:
            self._alarm = self.loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._deadline is None or self.transport.is_closing():
            return
        now = self.loop.time()
        if self.flow.read_paused:  # The server itself is slow.
            self._deadline = now + self._waiting.timeout
        if now < self._deadline:
            self._alarm = self.loop.call_at(self._deadline, self._ring)
        else:
            self.transport.close()

    def _forget(self) -> None:
        self._deadline = None
        self._waiting.connections.pop(self, None)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


def uvicorn_options(client_timeout: float) -> dict[str, Any]:
    """Arguments of uvicorn.Config. Raises the process's open file limit as far as allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    else:
        most = _WANTED_FILES if soft == resource.RLIM_INFINITY else soft
    # This many are accepted at once, before the first one is closed to make room.
    backlog = min(_MAX_BACKLOG, most // 8)
    waiting = Waiting(client_timeout, max(1, most - _OTHER_FILES - backlog))
    return {
        "http": partial(PatientProtocol, waiting=waiting),
        **WEBSOCKETS,
        "backlog": backlog,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "h11_max_incomplete_event_size": MAX_HEADER_BYTES,
    }
