"""Estimates how much work is ahead of a request, for reported ETAs and for deadlines."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection
from itertools import accumulate
from typing import NamedTuple

from multimodal_gen.messages.plan import Phase
from multimodal_gen.scheduling.cost_model import CostModel
from multimodal_gen.scheduling.job import Order, SchedulerJob

ALWAYS_FRESH = 32
"""Up to this many jobs are sorted on every query; for more, a snapshot is reused for a while."""
MAX_AGE_S = 1.0


class Ahead(NamedTuple):
    jobs: int
    seconds: float


class Backlog:
    """All jobs in their probable order of execution, refreshed from time to time."""

    def __init__(self, cost: CostModel, max_batch: int) -> None:
        self._cost = cost
        self._max_batch = max_batch
        self._taken = -math.inf
        self._orders: list[Order] = []
        self._seconds = [0.0]

    def ahead_of(self, job: SchedulerJob, jobs: Collection[SchedulerJob], now: float) -> Ahead:
        """Number of jobs that go before this one (which need not be queued), and their total
        time."""
        if len(jobs) <= ALWAYS_FRESH or now >= self._taken + MAX_AGE_S:
            self._take(jobs, now)
        at = bisect_left(self._orders, job.order(self._cost))
        return Ahead(at, self._seconds[at])

    def seconds_left(self, job: SchedulerJob) -> float:
        """Seconds left for the job in its current batch, or alone."""
        cost = self._cost
        pace = cost.seconds(Phase.DENOISE, job.key, max(job.batch_rows, job.rows))
        alone = cost.seconds(Phase.DENOISE, job.key, job.rows)
        return job.remaining(cost) + job.evaluations_left * (pace - alone)

    def _take(self, jobs: Collection[SchedulerJob], now: float) -> None:
        self._taken = now
        ordered = sorted((job.order(self._cost), self._share(job)) for job in jobs)
        self._orders = [order for order, _ in ordered]
        self._seconds = [0.0, *accumulate(share for _, share in ordered)]

    def _share(self, job: SchedulerJob) -> float:
        """Share of the device that the job takes when batches are full."""
        cost, rows = self._cost, job.rows * self._max_batch
        while rows > job.rows and not cost.fits(job.key, rows):
            rows = max(job.rows, rows // 2)
        alone = cost.seconds(Phase.DENOISE, job.key, job.rows)
        shared = cost.seconds(Phase.DENOISE, job.key, rows) * job.rows / rows
        return job.remaining(cost) - job.evaluations_left * (alone - min(alone, shared))
