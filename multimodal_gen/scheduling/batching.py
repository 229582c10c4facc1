"""Decides which jobs may share an evaluation."""

from __future__ import annotations

from multimodal_gen.messages.plan import Phase
from multimodal_gen.scheduling.cost_model import CostModel
from multimodal_gen.scheduling.job import SchedulerJob

GUEST_COST = 1.25
"""Maximum slowdown that a guest (lower priority, or much longer) may cause the other members."""
MUCH_LONGER = 2.0
"""A job is a guest if its predicted total exceeds the shortest member's by this factor."""


class EvaluationBatch:
    """Jobs for the next evaluation, built around the job whose turn it is."""

    def __init__(
        self, head: SchedulerJob, cost: CostModel, *, max_batch: int, alive: int, now: float
    ) -> None:
        """`alive`: number of requests that are queued or running, the head included."""
        self.jobs = [head]
        self.key = head.key
        self.rows = head.rows
        self._cost = cost
        self._max_batch = max_batch
        self._alive = alive
        self._now = now
        self._level = head.level
        self._hosts_rows = head.rows
        self._shortest = head.total(cost)
        self._deadlines = head.deadline is not None

    @property
    def full(self) -> bool:
        return len(self.jobs) >= self._max_batch

    def add(self, job: SchedulerJob) -> bool:
        """Add the job if it fits, saves time and delays no member unduly; returns whether it
        did."""
        cost, rows = self._cost, self.rows + job.rows
        if self.full or not cost.fits(self.key, rows):
            return False
        total = job.total(cost)
        guest = job.level < self._level or total > MUCH_LONGER * self._shortest
        together = cost.seconds(Phase.DENOISE, self.key, rows)
        if guest:
            alone = cost.seconds(Phase.DENOISE, self.key, self._hosts_rows)
            if together > GUEST_COST * alone:
                return False
        if not self._pays(job, together):
            return False
        if self._deadlines and self._misses_a_deadline(together):
            return False
        self.jobs.append(job)
        self.rows = rows
        self._deadlines = self._deadlines or job.deadline is not None
        if not guest:
            self._hosts_rows += job.rows
            self._shortest = min(self._shortest, total)
        return True

    def _pays(self, job: SchedulerJob, together: float) -> bool:
        """True if sharing shortens the mean time of all requests.

        Each member waits longer by what the job adds to the evaluation; the job, and everyone who
        waits for the device, gains what it would add as an evaluation of its own less that. While
        the gain is only guessed, up to twice the largest batch so far is tried, to measure it.
        """
        cost, rows = self._cost, self.rows + job.rows
        measured = cost.measured_rows(self.key)
        if len(measured) < 2:
            return rows <= 2 * max(measured, default=0)
        added = together - cost.seconds(Phase.DENOISE, self.key, self.rows)
        saved = cost.seconds(Phase.DENOISE, self.key, job.rows) - added
        members = len(self.jobs)
        waiting = max(0, self._alive - members - 1)
        return members * added <= (1 + waiting) * saved

    def _misses_a_deadline(self, together: float) -> bool:
        """True if a member that would meet its deadline now would miss it at this pace."""
        pace = self._cost.seconds(Phase.DENOISE, self.key, self.rows)
        for job in self.jobs:
            if job.deadline is None:
                continue
            left = job.deadline - self._now - job.decode_left(self._cost)
            if job.evaluations_left * pace <= left < job.evaluations_left * together:
                return True
        return False
