"""Tracks requests that have a deadline: when to hurry them, and when it has passed."""

from __future__ import annotations

from multimodal_gen.scheduling.cost_model import CostModel
from multimodal_gen.scheduling.job import SchedulerJob
from multimodal_gen.scheduling.queue.waiting import Index


class Deadlines:
    """All jobs with a deadline."""

    def __init__(self, cost: CostModel) -> None:
        self._cost = cost
        self._by_deadline = Index()
        self._hurry_at: dict[str, float] = {}
        self._by_hurry = Index()

    def add(self, job: SchedulerJob) -> None:
        if job.deadline is not None:
            self._by_deadline.add((job.deadline,), job)
            self._watch(job, job.deadline)

    def discard(self, job: SchedulerJob) -> None:
        if job.deadline is not None:
            self._by_deadline.discard((job.deadline,), job)
            hurry_at = self._hurry_at.pop(job.id, None)
            if hurry_at is not None:
                self._by_hurry.discard((hurry_at,), job)

    def passed(self, now: float) -> SchedulerJob | None:
        """A job whose deadline has passed, or None."""
        found = self._by_deadline.first()
        return found[1] if found and found[0][0] <= now else None

    def hurried(self, now: float) -> list[SchedulerJob]:
        """Jobs whose slack is no longer more than the time they need. Each is returned once."""
        jobs = []
        while (found := self._by_hurry.first()) and found[0][0] <= now:
            (hurry_at,), job = found
            self._by_hurry.discard((hurry_at,), job)
            del self._hurry_at[job.id]
            assert job.deadline is not None
            if job.deadline - 2 * self._needed(job) <= now:
                jobs.append(job)
            else:
                self._watch(job, job.deadline)
        return jobs

    def _watch(self, job: SchedulerJob, deadline: float) -> None:
        self._hurry_at[job.id] = deadline - 2 * self._needed(job)
        self._by_hurry.add((self._hurry_at[job.id],), job)

    def _needed(self, job: SchedulerJob) -> float:
        """Seconds of the job alone, with a change to each of its phases."""
        return job.remaining(self._cost) + self._cost.changes_s
