"""Lets any thread wake the one that polls sockets."""

from __future__ import annotations

import contextlib
import threading

import zmq


class Wakeup:
    """A bell: rung by any thread, polled and cleared by one.

    Ringing never blocks, however often: a bell that rings already is enough. (A full pipe that
    blocked would stop a thread that may hold what the polling thread waits for.)
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], name: str) -> None:
        self.socket = context.socket(zmq.PULL)
        self.socket.bind(f"inproc://{name}")
        self._sender = context.socket(zmq.PUSH)
        self._sender.connect(f"inproc://{name}")
        self._lock = threading.Lock()

    def ring(self) -> None:
        """Wake the polling thread; without effect once closed."""
        with self._lock:
            if not self._sender.closed:
                with contextlib.suppress(zmq.Again):
                    self._sender.send(b"", zmq.NOBLOCK)

    def clear(self) -> None:
        """Stop ringing: to be called before looking for what it rang about."""
        with contextlib.suppress(zmq.Again):
            while True:
                self.socket.recv(zmq.NOBLOCK)

    def close(self) -> None:
        with self._lock:
            self._sender.close(linger=0)
        self.socket.close(linger=0)
