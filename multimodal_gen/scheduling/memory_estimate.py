"""Predicts the memory that an evaluation adds on a rank: by formula, then from measurements."""

from __future__ import annotations

from itertools import islice

from multimodal_gen.messages.plan import BatchKey

RECENT = 9
"""Number of other keys by which a key is judged that was not measured itself."""


class MemoryEstimate:
    """Bytes of evaluations per key, and the most rows that have run since the engine started."""

    def __init__(self, token_bytes: float, max_keys: int) -> None:
        """`token_bytes`: first guess of what a token of a row takes."""
        self._token_bytes = token_bytes
        self._max_keys = max_keys
        self._ran: dict[BatchKey, int] = {}
        self._measured: dict[BatchKey, tuple[int, int]] = {}
        """Rows of the largest batch, and its bytes; the latest measured is last."""

    def bytes(self, key: BatchKey, rows: int) -> float:
        """Bytes of an evaluation of so many rows."""
        if (measured := self._measured.get(key)) is not None:
            return measured[1] * rows / measured[0]
        recent = islice(reversed(self._measured.items()), RECENT)
        ratios = (size / max(1.0, self._guess(near, n)) for near, (n, size) in recent)
        return self._guess(key, rows) * max(ratios, default=1.0)

    def has_run(self, key: BatchKey, rows: int) -> bool:
        """True if as many rows, or more, have run in this engine."""
        return rows <= self._ran.get(key, 0)

    def observe(self, key: BatchKey, rows: int, peak_bytes: int) -> None:
        """Record an evaluation that ran, and the memory that it added; 0 if that is unknown."""
        most = max(rows, self._ran.pop(key, 0))
        self._ran[key] = most
        if peak_bytes > 0 and rows == most:
            self._measured.pop(key, None)
            self._measured[key] = (rows, peak_bytes)
        if len(self._ran) > self._max_keys:
            oldest = next(iter(self._ran))
            del self._ran[oldest]
            self._measured.pop(oldest, None)

    def _guess(self, key: BatchKey, rows: int) -> float:
        return rows * key.tokens * self._token_bytes
