"""Decides which jobs may share an evaluation."""

from __future__ import annotations

from multimodal_gen.messages.plan import Phase
from multimodal_gen.scheduling.cost_model import CostModel
from multimodal_gen.scheduling.job import SchedulerJob

GUEST_COST = 1.25
"""Maximum slowdown that a guest (lower priority, or much longer) may cause the other members."""
LONGEST_SHARED_S = 30.0
"""Maximum seconds of a shared evaluation: nothing can interrupt it."""
MUCH_LONGER = 2.0
"""A job is a guest if its predicted total exceeds the shortest member's by this factor."""


class EvaluationBatch:
    """Jobs for the next evaluation, built around the job whose turn it is."""

    def __init__(
        self,
        head: SchedulerJob,
        cost: CostModel,
        *,
        max_batch: int,
        alive: int,
        slowdown: float,
        now: float,
    ) -> None:
        """`alive`: number of requests that are queued or running, the head included; `slowdown`: as
        of `Turns`, for the head's owner."""
        self.jobs = [head]
        self.key = head.key
        self.rows = head.rows
        self._cost = cost
        self._max_batch = max_batch
        self._alive = alive
        self._owner = head.owner
        self._owners_rows = head.rows
        self._slowdown = slowdown
        self._now = now
        self._level = head.level
        self._hosts_rows = head.rows
        self._shortest = head.total(cost)
        self._deadlines = head.deadline is not None
        self._refused: set[int] = set()
        """Numbers of rows of jobs that don't fit or don't pay, nor would in a larger batch."""

    @property
    def full(self) -> bool:
        return len(self.jobs) >= self._max_batch

    def add(self, job: SchedulerJob) -> bool:
        """Add the job if it fits, saves time and delays no member unduly; returns whether it
        did."""
        rows = self.rows + job.rows
        if self.full or job.rows in self._refused:
            return False
        together = self._seconds(rows)
        fits = self._cost.fits(self.key, rows) and together <= LONGEST_SHARED_S
        if not fits or not self._pays(job, together):
            self._refused.add(job.rows)
            return False
        total = job.total(self._cost)
        stranger = job.owner != self._owner
        guest = total > MUCH_LONGER * self._shortest
        guest = guest or (job.level < self._level and not stranger)
        if guest and together > GUEST_COST * self._seconds(self._hosts_rows):
            return False
        if stranger and together > self._slowdown * self._seconds(self._owners_rows):
            return False
        if self._deadlines and self._misses_a_deadline(together):
            return False
        self.jobs.append(job)
        self.rows = rows
        self._owners_rows += 0 if stranger else job.rows
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
        added = together - self._seconds(self.rows)
        saved = self._seconds(job.rows) - added
        members = len(self.jobs)
        waiting = max(0, self._alive - members - 1)
        return members * added <= (1 + waiting) * saved

    def _seconds(self, rows: int) -> float:
        return self._cost.seconds(Phase.DENOISE, self.key, rows)

    def _misses_a_deadline(self, together: float) -> bool:
        """True if a member that would meet its deadline now would miss it at this pace."""
        pace = self._seconds(self.rows)
        for job in self.jobs:
            if job.deadline is None:
                continue
            left = job.deadline - self._now - job.decode_left(self._cost)
            alike = job.evaluating(self._cost) / self._seconds(job.rows)
            if alike * pace <= left < alike * together:
                return True
        return False
