"""Time of one evaluation as a function of its rows, learned from measurements."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

WINDOW = 5
"""Measurements kept per number of rows; the lower median is used, so two slow ones don't matter."""
FORGET_AFTER = 50
"""A row count not measured for this many measurements of others is dropped. So a wrong measurement
can't keep a batch size from being tried again for long; if it was right, the two extra tries cost
little."""
NOISE = 0.02
"""Relative change too small to report."""
WORST_GROWTH = 3.0
"""Upper bound on the growth of the time per row in a larger batch."""


class Curve:
    """Seconds of one evaluation for n rows. `shape(n)` is the estimate before any measurement."""

    def __init__(
        self, shape: Callable[[int], float], windows: Mapping[int, Sequence[float]] | None = None
    ) -> None:
        self._shape = shape
        self.windows = {n: list(window) for n, window in (windows or {}).items()}
        self._seen = dict.fromkeys(self.windows, 0)
        self._count = 0
        self._predicted: dict[int, float] = {}

    def seconds(self, n: int) -> float:
        found = self._predicted.get(n)
        if found is None:
            found = self._predicted[n] = self._predict(n)
        return found

    def observe(self, n: int, seconds: float) -> bool:
        """Add a measurement. Returns whether predictions changed."""
        before = _lower_median(self.windows[n]) if n in self.windows else None
        length = len(self.windows.get(n, ()))
        self.windows[n] = [*self.windows.get(n, ()), seconds][-WINDOW:]
        self._count += 1
        self._seen[n] = self._count
        forgotten = [m for m, seen in self._seen.items() if seen < self._count - FORGET_AFTER]
        for m in forgotten:
            del self.windows[m], self._seen[m]
        after = _lower_median(self.windows[n])
        steady = before is not None and length > 1 and abs(after - before) <= NOISE * before
        if steady and not forgotten:
            return False
        self._predicted.clear()
        return True

    def _predict(self, n: int) -> float:
        points = self._points()
        if not points:
            return self._shape(n)
        estimate = points[n] if n in points else self._from_others(points, n)
        # More rows never take less time: this soon corrects the estimate after a slow first call.
        larger = [seconds for m, seconds in points.items() if m > n]
        smaller = [WORST_GROWTH * n / m * seconds for m, seconds in points.items() if m < n]
        return min([estimate, *larger, *smaller])

    def _points(self) -> dict[int, float]:
        """Estimate at each measured n. A single slow measurement, which may be a first call, is
        ignored if it contradicts those of other row counts."""
        points = {n: _lower_median(window) for n, window in self.windows.items()}
        sure = {n: points[n] for n, window in self.windows.items() if len(window) > 1}
        if sure:
            for n in points.keys() - sure.keys():
                points[n] = min(points[n], self._from_others(sure, n))
        return points

    def _from_others(self, points: Mapping[int, float], n: int) -> float:
        known = sorted(points)
        if len(known) == 1:
            return points[known[0]] * self._shape(n) / self._shape(known[0])
        at = bisect_left(known, n)
        if 0 < at < len(known):
            low, high = known[at - 1], known[at]
            share = (n - low) / (high - low)
            return points[low] + share * (points[high] - points[low])
        end = known[0] if at == 0 else known[-1]
        slope = min(max(_slope(points), 0.0), points[end] / end)
        return points[end] + slope * (n - end)


def _slope(points: Mapping[int, float]) -> float:
    """Slope of the least-squares line through the points."""
    mean_n = sum(points) / len(points)
    mean_seconds = sum(points.values()) / len(points)
    across = sum((n - mean_n) * (seconds - mean_seconds) for n, seconds in points.items())
    return across / sum((n - mean_n) ** 2 for n in points)


def _lower_median(values: Sequence[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2]
