"""Lets any thread wake the thread that polls sockets."""

from __future__ import annotations

import contextlib
import threading

import zmq


class Wakeup:
    """A flag that any thread sets, and one polls and clears.

    Setting it never blocks: when it is already set, nothing more is written. (Blocking on a full
    pipe could stop a thread that holds what the polling thread waits for.)
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], name: str) -> None:
        self.socket = context.socket(zmq.PULL)
        self.socket.bind(f"inproc://{name}")
        self._sender = context.socket(zmq.PUSH)
        self._sender.connect(f"inproc://{name}")
        self._lock = threading.Lock()

    def ring(self) -> None:
        """Wake the polling thread; no effect once closed."""
        with self._lock:
            if not self._sender.closed:
                with contextlib.suppress(zmq.Again):
                    self._sender.send(b"", zmq.NOBLOCK)

    def clear(self) -> None:
        """Clear the flag: call this before checking for new work."""
        with contextlib.suppress(zmq.Again):
            while True:
                self.socket.recv(zmq.NOBLOCK)

    def close(self) -> None:
        with self._lock:
            self._sender.close(linger=0)
        self.socket.close(linger=0)
