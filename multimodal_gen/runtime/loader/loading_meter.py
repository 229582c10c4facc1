"""Counts the bytes of weights that are loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

REPORT_S = 0.2
"""Minimum time between two reports of the same component."""


class LoadingMeter:
    """Reports a component's name, the bytes loaded so far and the bytes of all components."""

    def __init__(
        self,
        sizes: Mapping[str, int],
        report: Callable[[str, int, int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`sizes`: bytes of each component."""
        self._sizes = sizes
        self._report = report
        self._clock = clock
        self._name = ""
        self._before = 0
        self._reported_at = 0.0

    @contextmanager
    def component(self, name: str) -> Iterator[None]:
        """Context in which a component is loaded; those without weights are not reported."""
        self._name = name
        if self._sizes[name]:
            self._tell(self._before)
        yield
        self._before += self._sizes[name]
        if self._sizes[name]:
            self._tell(self._before)

    def within(self, fraction: float) -> None:
        """Note what fraction of the current component is loaded."""
        if self._clock() - self._reported_at >= REPORT_S:
            self._tell(self._before + int(fraction * self._sizes[self._name]))

    def _tell(self, loaded: int) -> None:
        self._reported_at = self._clock()
        self._report(self._name, loaded, sum(self._sizes.values()))
