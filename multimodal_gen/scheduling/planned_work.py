"""Work that was decided but not acknowledged: the running plan, and one ahead."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from multimodal_gen.messages.plan import BatchKey, Phase, Work
from multimodal_gen.scheduling.batch_planner import LEAD_S, Choice
from multimodal_gen.scheduling.job import SchedulerJob

CLOCK_S = 1e-6
"""Waits shorter than this count as none."""


class PlannedBatch(NamedTuple):
    work: Work
    jobs: tuple[SchedulerJob, ...]
    key: BatchKey
    rows: int
    seconds: float
    """Predicted seconds for all of its units."""
    switch_s: float
    """Those until its first unit can begin."""


class PlannedWork:
    """First in, first out. Decided work counts as done until a result says otherwise."""

    def __init__(self) -> None:
        self._planned: deque[PlannedBatch] = deque()
        self._began = 0.0
        self._recalled = False

    @property
    def seconds(self) -> float:
        """Predicted seconds for everything in flight."""
        return sum(batch.seconds for batch in self._planned)

    @property
    def closed(self) -> bool:
        """True if nothing may be decided: one plan is ahead already, or work that was decided on
        top of an incomplete plan must be acknowledged first."""
        return self._recalled or len(self._planned) > 1

    def mates(self, job: SchedulerJob) -> int:
        """Number of requests in the first work that includes the job, itself included; 0 if it is
        in none."""
        return next((len(batch.jobs) for batch in self._planned if job in batch.jobs), 0)

    @property
    def encoding(self) -> bool:
        """True while requests are being encoded: they may join the next work, or go first."""
        return any(batch.work.phase is Phase.ENCODE for batch in self._planned)

    def wait(self, now: float) -> float:
        """Seconds until the next plan is decided: shortly before the predicted end of the running
        one."""
        if not self._planned:
            return 0.0
        early = self._began + self._planned[0].seconds - LEAD_S - now
        return early if early > CLOCK_S else 0.0

    def add(self, choice: Choice, now: float) -> Work:
        work = Work(
            phase=choice.phase,
            ids=tuple(job.id for job in choice.jobs),
            k=choice.k,
            untried_bytes=choice.untried_bytes,
            runner=choice.runner,
        )
        batch = PlannedBatch(
            work, tuple(choice.jobs), choice.key, choice.rows, choice.seconds, choice.switch_s
        )
        if not self._planned:
            self._began = now
        self._planned.append(batch)
        for job in batch.jobs:
            job.advance(choice.phase, choice.k)
        return work

    def finish(self, work: Work, advanced: int, now: float, *, failed: bool) -> PlannedBatch:
        """Correct `planned` to what was done. Raises LookupError for work that is not in flight."""
        at = [batch.work for batch in self._planned].index(work)
        batch = self._planned[at]
        del self._planned[at]
        self._began = now
        for job in batch.jobs:
            job.done[work.phase] += advanced
            job.advance(work.phase, advanced - work.k)
        cut_short = failed or advanced < work.k
        self._recalled = bool(self._planned) and (self._recalled or cut_short)
        return batch
