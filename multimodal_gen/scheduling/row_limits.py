"""Learns how many rows of a batch key fit into memory, from failures and successes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from multimodal_gen.messages.plan import BatchKey

FIRST_PROOF = 32
"""Evaluations at the limit that must succeed before it is raised; doubles with each failure."""
LONGEST_PROOF = 4096
MORE_MEMORY = 1.1
"""Limits are forgotten where free memory is larger by this factor than where they were learned."""


@dataclass
class _Limit:
    rows: int
    proof: int = FIRST_PROOF
    successes: int = 0


class RowLimits:
    """Maximum rows per key. A failed allocation halves it; successes at the limit raise it again,
    since what failed may have been short of memory for another reason."""

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        self._limits: dict[BatchKey, _Limit] = {}

    def allow(self, key: BatchKey, rows: int) -> bool:
        """True if no allocation for this many rows is known to fail."""
        limit = self._limits.get(key)
        return limit is None or rows <= limit.rows

    def failed(self, key: BatchKey, rows: int) -> None:
        """Halve the limit, after an allocation for this many rows failed."""
        limit = self._limits.pop(key, None)
        if limit is None:
            limit = _Limit(rows)
        else:
            limit.proof = min(2 * limit.proof, LONGEST_PROOF)
        limit.rows, limit.successes = max(1, min(rows, limit.rows) // 2), 0
        self._limits[key] = limit
        if len(self._limits) > self._max_keys:
            del self._limits[next(iter(self._limits))]

    def succeeded(self, key: BatchKey, rows: int) -> None:
        """Count a batch of this many rows that ran; enough of them at the limit raise it."""
        limit = self._limits.get(key)
        if limit is None or rows < limit.rows:
            return
        limit.successes += 1
        if limit.successes >= limit.proof:
            limit.rows, limit.successes = rows + max(1, rows // 4), 0

    def kept(self) -> list[tuple[BatchKey, int]]:
        """Limits as plain data, the oldest first."""
        return [(key, limit.rows) for key, limit in self._limits.items()]

    def restore(self, kept: Iterable[tuple[BatchKey, int]]) -> None:
        """Set limits from plain data."""
        self._limits = {key: _Limit(rows) for key, rows in [*kept][-self._max_keys :]}
