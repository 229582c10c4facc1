"""Durations of one evaluation, as an engine reports them to its clients."""

from __future__ import annotations

import math
from bisect import bisect_left

import msgspec


class EvaluationCosts(msgspec.Struct, frozen=True, tag="costs"):
    """Least plausible seconds of one evaluation of one request, by tokens.

    Sent when an engine is ready, and again when measurements change the prediction.
    """

    points: tuple[tuple[int, float], ...] = ()
    """Tokens and seconds, ascending."""

    def seconds(self, tokens: int) -> float:
        """Seconds for so many tokens, on straight lines through the logarithms of the points."""
        return _between(self.points, tokens)

    def tokens(self, seconds: float) -> int:
        """The most tokens of an evaluation that takes no longer."""
        return int(_between([(s, t) for t, s in self.points], seconds))


def _between(points: list[tuple[float, int]] | tuple[tuple[int, float], ...], x: float) -> float:
    """Interpolate, or extrapolate from the two nearest points. 0 without points."""
    if len(points) < 2:
        return 0.0
    at = min(max(bisect_left([point[0] for point in points], x), 1), len(points) - 1)
    (x0, y0), (x1, y1) = points[at - 1], points[at]
    slope = math.log(y1 / y0) / math.log(x1 / x0) if x1 > x0 else 0.0
    return float(y0 * (max(x, 1e-9) / x0) ** slope)
