"""One owner's requests in an engine, in the order in which the engine will run them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from itertools import accumulate

LinePlace = tuple[float, float]
"""Order, and seconds of the engine that are left for the request."""


class WorkLine:
    """Requests by order, with the sums of their work: a question takes O(log n), a change O(n) of
    the few requests that one engine has in flight."""

    def __init__(self) -> None:
        self._places: list[LinePlace] = []
        self._orders: list[float] = []
        self._sums = [0.0]

    @property
    def seconds(self) -> float:
        return self._sums[-1]

    def before(self, order: float) -> float:
        """Seconds of the work that goes before a new request of this order."""
        return self._sums[bisect_right(self._orders, order)]

    def add(self, place: LinePlace) -> None:
        insort(self._places, place)
        self._sum()

    def remove(self, place: LinePlace) -> None:
        del self._places[bisect_left(self._places, place)]
        self._sum()

    def __len__(self) -> int:
        return len(self._places)

    def _sum(self) -> None:
        self._orders = [order for order, _ in self._places]
        self._sums = [0.0, *accumulate(seconds for _, seconds in self._places)]
