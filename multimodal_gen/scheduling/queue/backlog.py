"""Estimates how much work is ahead of a request, for reported ETAs and for deadlines."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import NamedTuple

from multimodal_gen.messages.plan import BatchKey, Phase
from multimodal_gen.scheduling.cost_model import CostModel
from multimodal_gen.scheduling.job import SchedulerJob
from multimodal_gen.scheduling.queue.work_index import Ahead, Rank, WorkIndex

REVALUED = 8
"""After predictions have changed, so many of the jobs in line are predicted anew at each question:
a small part of the work, whatever the length of the queue."""


class _Place(NamedTuple):
    """A job's place in line, and its prediction."""

    rank: Rank
    version: tuple[int, int]


class _Line:
    """One owner's jobs that have not begun."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.work = WorkIndex()


class Backlog:
    """All jobs in their probable order of execution: those that have not begun by size, as
    `WaitingQueue` has them, and those that have begun among them by the time that is left."""

    def __init__(self, cost: CostModel, max_batch: int) -> None:
        self._cost = cost
        self._max_batch = max_batch
        self._lines: dict[str, _Line] = {}
        self._places: OrderedDict[SchedulerJob, _Place] = OrderedDict()
        """Of those that have not begun; the prediction of the first is the oldest."""
        self._revisions = 0
        self._saved: dict[tuple[BatchKey, int], float] = {}
        self._saved_at = -1

    def add(self, job: SchedulerJob) -> None:
        """Count a job that has not begun."""
        line = self._lines.setdefault(job.owner, _Line(job.weight))
        line.weight = job.weight
        place = self._places[job] = _Place(_rank(job), self._version)
        line.work.add(place.rank, self._share(job))

    def discard(self, job: SchedulerJob) -> None:
        """Count a job no longer, if it was."""
        if (place := self._places.pop(job, None)) is None:
            return
        line = self._lines[job.owner]
        line.work.remove(place.rank)
        if not line.work:
            del self._lines[job.owner]

    def revise(self) -> None:
        """Note that predictions have changed, apart from the cost model."""
        self._revisions += 1

    def ahead_of(self, job: SchedulerJob, begun: Collection[SchedulerJob]) -> Ahead:
        """Number of jobs that go before this one (which need not be queued), and their total
        time. Other owners get the device for as long as its owner, until they are done."""
        self._revalue()
        order = job.order(self._cost)
        own, strangers = Ahead(0, 0.0), dict[str, list[SchedulerJob]]()
        for other in begun:
            if other.owner != job.owner:
                strangers.setdefault(other.owner, []).append(other)
            elif other is not job and other.order(self._cost) < order:
                own = Ahead(own.jobs + 1, own.seconds + self._share(other))
        if (line := self._lines.get(job.owner)) is not None:
            own = own.plus(line.work.before(self._rank_among_waiting(job)))
        if job.precedes:
            return own
        until = (own.seconds + job.remaining(self._cost)) / job.weight
        ahead = own
        for owner in self._lines.keys() | strangers.keys():
            if owner != job.owner:
                ahead = ahead.plus(self._within(owner, strangers.get(owner, ()), until))
        return ahead

    def seconds_left(self, job: SchedulerJob) -> float:
        """Seconds left for the job in its current batch, or alone."""
        cost = self._cost
        own, shared = job.in_batch
        pace = cost.seconds(Phase.DENOISE, job.key, shared)
        alone = cost.seconds(Phase.DENOISE, job.key, own)
        return job.remaining(cost) + job.evaluating(cost) * (pace / alone - 1)

    @property
    def _version(self) -> tuple[int, int]:
        return self._cost.version, self._revisions

    def _revalue(self) -> None:
        for _ in range(REVALUED):
            if not self._places:
                return
            job, place = next(iter(self._places.items()))
            if place.version == self._version:
                return
            self._lines[job.owner].work.change(place.rank, self._share(job))
            self._places[job] = place._replace(version=self._version)
            self._places.move_to_end(job)

    def _rank_among_waiting(self, job: SchedulerJob) -> Rank:
        """A job that has begun goes before those with more than its time left times its total."""
        if (place := self._places.get(job)) is not None:
            return place.rank
        total = job.total(self._cost)
        part = math.sqrt(job.remaining(self._cost) / total) if total else 1.0
        return -job.level, job.size * part, job.number

    def _within(self, owner: str, begun: Sequence[SchedulerJob], until: float) -> Ahead:
        """Work that another owner has done when one of weight 1 has had `until` seconds."""
        line, jobs, seconds = self._lines.get(owner), 0, 0.0
        weight = line.weight if line is not None else begun[0].weight
        allowed = until * weight
        for job in begun:
            share = self._share(job)
            jobs += seconds + share <= allowed
            seconds = min(seconds + share, allowed)
        done = Ahead(jobs, seconds)
        return done if line is None else done.plus(line.work.within(allowed - seconds))

    def _share(self, job: SchedulerJob) -> float:
        """Share of the device that the job takes when batches are full."""
        key, rows = job.key, job.most_rows
        if self._saved_at != self._cost.version:
            self._saved.clear()
            self._saved_at = self._cost.version
        saved = self._saved.get((key, rows))
        if saved is None:
            saved = self._saved[key, rows] = self._saved_by_sharing(key, rows)
        return job.remaining(self._cost) - job.evaluating(self._cost) * saved

    def _saved_by_sharing(self, key: BatchKey, rows: int) -> float:
        """Part of its time that an evaluation of so many rows saves where batches are full."""
        cost, full = self._cost, rows * self._max_batch
        while full > rows and not cost.fits(key, full):
            full = max(rows, full // 2)
        alone = cost.seconds(Phase.DENOISE, key, rows)
        return max(0.0, 1 - cost.seconds(Phase.DENOISE, key, full) * rows / full / alone)


def _rank(job: SchedulerJob) -> Rank:
    return -job.level, job.size, job.number
