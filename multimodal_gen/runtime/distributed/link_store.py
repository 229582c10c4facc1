"""torch's rendezvous over the ranks' own link, so that no port is opened that lacks keys."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import torch.distributed as dist
import zmq

from multimodal_gen.messages.rendezvous import StoreCall, StoreOp, StoreReply

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store as Store  # where its types are
else:
    from torch.distributed import Store as Store

_ASK_AGAIN_S = 0.01


class LinkStore(Store):
    """Keys and values that the Scheduler keeps. Any thread can use it."""

    def __init__(self, socket: zmq.Socket[bytes], rank: int) -> None:
        """`socket` is connected, and is this store's alone."""
        super().__init__()
        self._socket = socket
        self._rank = rank
        self._timeout = dist.constants.default_pg_timeout
        self._lock = threading.Lock()

    def set(self, key: str, value: str | bytes) -> None:
        self._ask("set", key, value)

    def get(self, key: str) -> bytes:
        """Wait for a key. Raises DistStoreError."""
        return self._awaited(key, self._timeout)

    def add(self, key: str, value: int) -> int:
        return int(self._ask("add", key, str(value)) or 0)

    def compare_set(self, key: str, expected_value: Any, desired_value: Any) -> bytes:
        return self._ask("compare_set", key, desired_value, expected_value) or b""

    def check(self, keys: Sequence[str]) -> bool:
        return all(self._ask("get", key) is not None for key in keys)

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        for key in keys:
            self._awaited(key, timeout or self._timeout)

    def delete_key(self, key: str) -> bool:
        return self._ask("delete", key) is not None

    def num_keys(self) -> int:
        return int(self._ask("count") or 0)

    def set_timeout(self, timeout: timedelta) -> None:
        self._timeout = timeout

    def clone(self) -> LinkStore:
        return self

    def _awaited(self, key: str, timeout: timedelta) -> bytes:
        end = time.monotonic() + timeout.total_seconds()
        while (value := self._ask("get", key)) is None:
            if time.monotonic() > end:
                raise dist.DistStoreError(f"no rank has set {key} within {timeout}")
            time.sleep(_ASK_AGAIN_S)
        return value

    def _ask(
        self, op: StoreOp, key: str = "", value: str | bytes = b"", expected: str | bytes = b""
    ) -> bytes | None:
        values = {"value": _bytes(value), "expected": _bytes(expected)}
        call = StoreCall(rank=self._rank, op=op, key=key, **values)
        with self._lock:
            self._socket.send(msgspec.msgpack.encode(call))
            reply = self._socket.recv()
        return msgspec.msgpack.decode(reply, type=StoreReply).value


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
