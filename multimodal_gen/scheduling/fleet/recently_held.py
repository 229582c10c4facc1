"""Memory of things that an engine probably still holds, since they were sent there lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable


class RecentlyHeld:
    """The last `most` things, by use."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: OrderedDict[Hashable, None] = OrderedDict()

    def use(self, things: Iterable[Hashable]) -> None:
        for thing in things:
            self._held[thing] = None
            self._held.move_to_end(thing)
        while len(self._held) > self._most:
            self._held.popitem(last=False)

    def __contains__(self, thing: Hashable) -> bool:
        return thing in self._held
