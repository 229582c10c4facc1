"""Measures this process's anonymous memory, which excludes file pages."""

from __future__ import annotations

import threading
from pathlib import Path

SAMPLE_S = 0.002
_STATUS = Path("/proc/self/status")


class AnonymousMemory:
    """Context manager that measures from start to end, in bytes. 0 except on Linux."""

    def __init__(self) -> None:
        self.before = 0
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="anonymous-memory", daemon=True)

    def __enter__(self) -> AnonymousMemory:
        self.before = self.peak = _anonymous_bytes()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_S):
            self.peak = max(self.peak, _anonymous_bytes())


def _anonymous_bytes() -> int:
    if not _STATUS.exists():
        return 0
    lines = _STATUS.read_text().splitlines()
    kilobytes = next((line.split()[1] for line in lines if line.startswith("RssAnon")), "0")
    return int(kilobytes) * 1024
