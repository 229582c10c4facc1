"""A clock for ages, which doesn't follow steps of the system's clock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from multimodal_gen.serving.storage.failures import storing

MOST_AWAY_S = 3600.0
"""Longest time between two servers that is believed: more may be a step of the system's clock."""


class SteadyClock:
    """Seconds since 1970 when the server started, and monotonic since then.

    A file's time stamp marks the time, so that the next server knows how long none ran. `jump` is
    how far the system's clock has moved beyond what is believed, or back: what has an age at the
    start is that much younger than its time stamp says.
    """

    def __init__(
        self,
        file: Path,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises OSError."""
        self._file = file
        self._monotonic = monotonic
        self._offset = wall() - monotonic()
        away = 0.0
        if file.exists():
            away = self.now() - file.stat().st_mtime
        else:
            file.touch(mode=0o600)
        self.jump = away - min(max(away, 0.0), MOST_AWAY_S)
        self.mark()

    def now(self) -> float:
        return self._monotonic() + self._offset

    def mark(self) -> None:
        """Remember the time for the next server. Raises StorageUnavailable."""
        with storing():
            os.utime(self._file, (self.now(), self.now()))


class SystemClock:
    """The system's clock, for servers that share a ledger: their machines' clocks are in step."""

    jump = 0.0

    def now(self) -> float:
        return time.time()

    def mark(self) -> None:
        """Does nothing: there is no file to mark."""
