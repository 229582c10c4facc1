"""Queue of requests that have not started, indexed so that decisions stay cheap with ten
thousand."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import islice

from multimodal_gen.scheduling.geometry import Geometry
from multimodal_gen.scheduling.job import SchedulerJob

Key = tuple[float, ...]
Entry = tuple[Key, int, SchedulerJob]


class Index:
    """Jobs sorted by a key, then by arrival."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def add(self, key: Key, job: SchedulerJob) -> None:
        insort(self._entries, (key, job.number, job))

    def discard(self, key: Key, job: SchedulerJob) -> None:
        at = bisect_left(self._entries, (key, job.number))
        if at < len(self._entries) and self._entries[at][2] is job:
            del self._entries[at]

    def first(self) -> tuple[Key, SchedulerJob] | None:
        return (self._entries[0][0], self._entries[0][2]) if self._entries else None

    def __iter__(self) -> Iterator[SchedulerJob]:
        return (entry[2] for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class WaitingQueue:
    """Waiting jobs by priority and size, overall and per geometry; and by age."""

    def __init__(self) -> None:
        self._by_order = Index()
        self._by_geometry: dict[Geometry, Index] = {}
        self._by_age = Index()

    def add(self, job: SchedulerJob) -> None:
        key = _order(job)
        self._by_order.add(key, job)
        self._by_geometry.setdefault(job.geometry, Index()).add(key, job)
        self._by_age.add((job.aged_at,), job)

    def discard(self, job: SchedulerJob) -> None:
        key = _order(job)
        self._by_order.discard(key, job)
        self._by_age.discard((job.aged_at,), job)
        mates = self._by_geometry.get(job.geometry)
        if mates is not None:
            mates.discard(key, job)
            if not mates:
                del self._by_geometry[job.geometry]

    def first(self) -> SchedulerJob | None:
        """The smallest job of the highest priority."""
        found = self._by_order.first()
        return found[1] if found else None

    def oldest(self) -> SchedulerJob | None:
        """The job that counts as aged first."""
        found = self._by_age.first()
        return found[1] if found else None

    def of_geometry(self, geometry: Geometry, count: int) -> list[SchedulerJob]:
        """First `count` jobs of this geometry."""
        return list(islice(self._by_geometry.get(geometry, ()), count))

    def __len__(self) -> int:
        return len(self._by_order)


class WaitingLines:
    """A queue for each owner that has waiting jobs."""

    def __init__(self) -> None:
        self._lines: dict[str, WaitingQueue] = {}

    def add(self, job: SchedulerJob) -> None:
        self._lines.setdefault(job.owner, WaitingQueue()).add(job)

    def discard(self, job: SchedulerJob) -> None:
        if (line := self._lines.get(job.owner)) is not None:
            line.discard(job)
            if not line:
                del self._lines[job.owner]

    def firsts(self) -> list[SchedulerJob]:
        """The first job of each owner."""
        return [first for line in self._lines.values() if (first := line.first()) is not None]

    def oldest(self, owner: str | None) -> SchedulerJob | None:
        """The job of this owner, or of all if None, that counts as aged first."""
        lines = self._lines.values() if owner is None else filter(None, [self._lines.get(owner)])
        oldest = [job for line in lines if (job := line.oldest()) is not None]
        return min(oldest, key=lambda job: (job.aged_at, job.number), default=None)

    def mates_of(self, job: SchedulerJob, count: int) -> list[SchedulerJob]:
        """First `count` jobs of the same owner and geometry."""
        line = self._lines.get(job.owner)
        return [] if line is None else line.of_geometry(job.geometry, count)

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))


def _order(job: SchedulerJob) -> Key:
    return (-job.level, job.size)
