"""Cache of the conditioning of recent prompts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor

MAX_BYTES = 256 << 20


class ConditioningCache:
    """Limited in bytes; evicts the least recently used. Don't write to its tensors."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[Hashable, dict[str, Tensor]] = OrderedDict()

    def get(self, key: Hashable, encode: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tensors for `key`; calls `encode` if they are not cached."""
        found = self._entries.get(key)
        if found is None:
            found = encode()
            self._add(key, found)
        else:
            self._entries.move_to_end(key)
        return dict(found)

    def _add(self, key: Hashable, tensors: dict[str, Tensor]) -> None:
        size = _size(tensors)
        if size > self._max_bytes:
            return
        self._entries[key] = tensors
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self._bytes -= _size(dropped)


def _size(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())
