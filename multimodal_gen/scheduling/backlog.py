"""Estimates how much work is ahead of a request, for reported ETAs and for deadlines."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection
from itertools import accumulate
from typing import NamedTuple

from multimodal_gen.messages.plan import Phase
from multimodal_gen.scheduling.cost_model import CostModel
from multimodal_gen.scheduling.job import Order, SchedulerJob

ALWAYS_FRESH = 32
"""Up to this many jobs are sorted on every query; for more, a snapshot is reused for a while."""
MAX_AGE_S = 1.0
JOBS_PER_S = 1000
"""A snapshot of more jobs is used for longer, so that taking it is a small part of the work."""


class Ahead(NamedTuple):
    jobs: int
    seconds: float


class _Line:
    """One owner's jobs in their probable order of execution."""

    def __init__(self, jobs: list[tuple[Order, float]], weight: float) -> None:
        """`jobs`: the order of each, and the share of the device that it takes, in seconds."""
        jobs.sort()
        self.weight = weight
        self.orders = [order for order, _ in jobs]
        self.seconds = [0.0, *accumulate(share for _, share in jobs)]

    def before(self, order: Order) -> Ahead:
        at = bisect_left(self.orders, order)
        return Ahead(at, self.seconds[at])

    def within(self, seconds: float) -> Ahead:
        """Work that is done once the owner has had so much of the device."""
        return Ahead(bisect_right(self.seconds, seconds) - 1, min(self.seconds[-1], seconds))


class Backlog:
    """All jobs in their probable order of execution, refreshed from time to time."""

    def __init__(self, cost: CostModel, max_batch: int) -> None:
        self._cost = cost
        self._max_batch = max_batch
        self._taken = -math.inf
        self._lines: dict[str, _Line] = {}

    def ahead_of(self, job: SchedulerJob, jobs: Collection[SchedulerJob], now: float) -> Ahead:
        """Number of jobs that go before this one (which need not be queued), and their total
        time. Other owners get the device for as long as its owner, until they are done."""
        age = MAX_AGE_S * max(1.0, len(jobs) / JOBS_PER_S)
        if len(jobs) <= ALWAYS_FRESH or now >= self._taken + age:
            self._take(jobs, now)
        own, strangers = Ahead(0, 0.0), []
        for owner, line in self._lines.items():
            if owner == job.owner:
                own = line.before(job.order(self._cost))
            elif not job.precedes:
                strangers.append(line)
        until = (own.seconds + job.remaining(self._cost)) / job.weight
        others = [line.within(until * line.weight) for line in strangers]
        return Ahead(
            own.jobs + sum(other.jobs for other in others),
            own.seconds + sum(other.seconds for other in others),
        )

    def seconds_left(self, job: SchedulerJob) -> float:
        """Seconds left for the job in its current batch, or alone."""
        cost = self._cost
        pace = cost.seconds(Phase.DENOISE, job.key, max(job.batch_rows, job.rows))
        alone = cost.seconds(Phase.DENOISE, job.key, job.rows)
        return job.remaining(cost) + job.evaluations_left * (pace - alone)

    def _take(self, jobs: Collection[SchedulerJob], now: float) -> None:
        self._taken = now
        shares: dict[str, list[tuple[Order, float]]] = {}
        for job in jobs:
            share = job.order(self._cost), self._share(job)
            shares.setdefault(job.owner, []).append(share)
        weights = {job.owner: job.weight for job in jobs}
        self._lines = {owner: _Line(line, weights[owner]) for owner, line in shares.items()}

    def _share(self, job: SchedulerJob) -> float:
        """Share of the device that the job takes when batches are full."""
        cost, rows = self._cost, job.rows * self._max_batch
        while rows > job.rows and not cost.fits(job.key, rows):
            rows = max(job.rows, rows // 2)
        alone = cost.seconds(Phase.DENOISE, job.key, job.rows)
        shared = cost.seconds(Phase.DENOISE, job.key, rows) * job.rows / rows
        return job.remaining(cost) - job.evaluations_left * (alone - min(alone, shared))
