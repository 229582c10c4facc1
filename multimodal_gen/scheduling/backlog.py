"""How much work stands before a request: what users are told, and what deadlines are held to."""

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
"""So few jobs are sorted at every question; of more, the picture may be old."""
MAX_AGE_S = 1.0


class Ahead(NamedTuple):
    jobs: int
    seconds: float


class Backlog:
    """All jobs in the order in which they will probably run, looked at from time to time."""

    def __init__(self, cost: CostModel, max_batch: int) -> None:
        self._cost = cost
        self._max_batch = max_batch
        self._taken = -math.inf
        self._orders: list[Order] = []
        self._seconds = [0.0]

    def ahead_of(self, job: SchedulerJob, jobs: Collection[SchedulerJob], now: float) -> Ahead:
        """Those that go before the job (which need not be one of them), and how long they take."""
        if len(jobs) <= ALWAYS_FRESH or now >= self._taken + MAX_AGE_S:
            self._take(jobs, now)
        at = bisect_left(self._orders, job.order(self._cost))
        return Ahead(at, self._seconds[at])

    def seconds_left(self, job: SchedulerJob) -> float:
        """Of the job in the batch that it is in, or alone."""
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
        """Of the device, when batches are full."""
        cost, rows = self._cost, job.rows * self._max_batch
        while rows > job.rows and not cost.fits(job.key, rows):
            rows = max(job.rows, rows // 2)
        alone = cost.seconds(Phase.DENOISE, job.key, job.rows)
        shared = cost.seconds(Phase.DENOISE, job.key, rows) * job.rows / rows
        return job.remaining(cost) - job.evaluations_left * (alone - min(alone, shared))
