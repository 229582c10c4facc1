"""Jobs in order, with the sums of their work."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import NamedTuple

MAX_BLOCK = 128

Rank = tuple[float, ...]
"""Sort key, unique to a job."""


class Ahead(NamedTuple):
    jobs: int
    seconds: float

    def plus(self, other: Ahead) -> Ahead:
        return Ahead(self.jobs + other.jobs, self.seconds + other.seconds)


class _Block:
    def __init__(self, ranks: list[Rank], seconds: list[float]) -> None:
        self.ranks = ranks
        self.seconds = seconds

    def split(self) -> _Block:
        """Move the later half to a new block."""
        half = len(self.ranks) // 2
        later = _Block(self.ranks[half:], self.seconds[half:])
        del self.ranks[half:], self.seconds[half:]
        return later


class WorkIndex:
    """Ranks in order, each with its seconds, in blocks of at most `MAX_BLOCK`: a change or a
    question takes the time of one block and of the list of blocks, O(sqrt(n))."""

    def __init__(self) -> None:
        self._blocks = [_Block([], [])]
        self._firsts: list[Rank] = [()]
        """The least rank that belongs into each block."""
        self._counts = [0]
        self._sums = [0.0]
        self.total = Ahead(0, 0.0)

    def add(self, rank: Rank, seconds: float) -> None:
        at, block = self._block_of(rank)
        place = bisect_left(block.ranks, rank)
        block.ranks.insert(place, rank)
        block.seconds.insert(place, seconds)
        if len(block.ranks) > MAX_BLOCK:
            later = block.split()
            self._blocks.insert(at + 1, later)
            self._firsts.insert(at + 1, later.ranks[0])
            self._counts.insert(at + 1, 0)
            self._sums.insert(at + 1, 0.0)
            self._sum(at + 1)
        self._sum(at)

    def remove(self, rank: Rank) -> None:
        """Raises LookupError for a rank that is not here."""
        at, block = self._block_of(rank)
        place = bisect_left(block.ranks, rank)
        if block.ranks[place] != rank:
            raise LookupError(rank)
        del block.ranks[place], block.seconds[place]
        self._sum(at)
        if not block.ranks and at:
            del self._blocks[at], self._firsts[at], self._counts[at], self._sums[at]

    def change(self, rank: Rank, seconds: float) -> None:
        """Let a rank that is here have these seconds."""
        at, block = self._block_of(rank)
        block.seconds[bisect_left(block.ranks, rank)] = seconds
        self._sum(at)

    def before(self, rank: Rank) -> Ahead:
        """Everything of a smaller rank."""
        at, block = self._block_of(rank)
        place = bisect_left(block.ranks, rank)
        return Ahead(
            sum(self._counts[:at]) + place, sum(self._sums[:at]) + sum(block.seconds[:place])
        )

    def within(self, seconds: float) -> Ahead:
        """Work done after so many seconds; counts whole jobs."""
        if seconds >= self.total.seconds:
            return self.total
        sums = [0.0, *accumulate(self._sums)]
        at = min(bisect_right(sums, seconds), len(self._sums)) - 1
        inside = [*accumulate(self._blocks[at].seconds, initial=sums[at])]
        return Ahead(sum(self._counts[:at]) + bisect_right(inside, seconds) - 1, seconds)

    def __len__(self) -> int:
        return self.total.jobs

    def _block_of(self, rank: Rank) -> tuple[int, _Block]:
        at = bisect_right(self._firsts, rank) - 1
        return at, self._blocks[at]

    def _sum(self, at: int) -> None:
        block = self._blocks[at]
        self._counts[at], self._sums[at] = len(block.ranks), sum(block.seconds)
        self.total = Ahead(sum(self._counts), sum(self._sums))
