"""Requests that must be done by a time: when to hurry, and when it is too late."""

from __future__ import annotations

from multimodal_gen.scheduling.cost_model import CostModel
from multimodal_gen.scheduling.job import SchedulerJob
from multimodal_gen.scheduling.waiting import Index


class Deadlines:
    """The jobs that have one."""

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
        """One whose deadline is over."""
        found = self._by_deadline.first()
        return found[1] if found and found[0][0] <= now else None

    def hurried(self, now: float) -> list[SchedulerJob]:
        """Those whose slack has become no more than the time that they need. Each is told once."""
        jobs = []
        while (found := self._by_hurry.first()) and found[0][0] <= now:
            (hurry_at,), job = found
            self._by_hurry.discard((hurry_at,), job)
            del self._hurry_at[job.id]
            assert job.deadline is not None
            if job.deadline - 2 * job.remaining(self._cost) <= now:
                jobs.append(job)
            else:
                self._watch(job, job.deadline)
        return jobs

    def _watch(self, job: SchedulerJob, deadline: float) -> None:
        self._hurry_at[job.id] = deadline - 2 * job.remaining(self._cost)
        self._by_hurry.add((self._hurry_at[job.id],), job)
