"""The jobs of A1111's clients that are under way: what `/progress` tells of, `/interrupt` ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.task import Task


class A1111Job:
    """One txt2img or img2img."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.timestamp = time.strftime("%Y%m%d%H%M%S")
        self.interrupted = False
        self.skipped = False
        self._furthest = 0.0

    @property
    def stopped(self) -> bool:
        return self.interrupted or self.skipped

    def fraction(self) -> float:
        """0 to 1, and never less than before: a job that is replayed stands still for a while."""
        self._furthest = max(self._furthest, self.task.progress.fraction)
        return self._furthest

    def state(self) -> dict[str, Any]:
        """As `/progress` shows it."""
        steps = self.task.requests[0].params.num_inference_steps or 1
        return {
            **IDLE,
            "skipped": self.skipped,
            "interrupted": self.interrupted,
            "stopping_generation": self.stopped,
            "job": self.task.id,
            "job_count": len(self.task.requests),
            "job_timestamp": self.timestamp,
            "job_no": sum(output is not None for output in self.task.outputs),
            "sampling_step": int(self.fraction() * steps),
            "sampling_steps": steps,
        }


IDLE: dict[str, Any] = {
    "skipped": False,
    "interrupted": False,
    "stopping_generation": False,
    "job": "",
    "job_count": 0,
    "job_timestamp": "0",
    "job_no": 0,
    "sampling_step": 0,
    "sampling_steps": 0,
}
"""The state while nothing runs."""


class RunningJobs:
    """Those alive, oldest first. The web UI knows one job at a time: here each owner's oldest."""

    def __init__(self) -> None:
        self._jobs: list[A1111Job] = []

    @contextlib.contextmanager
    def under_way(self, task: Task) -> Iterator[A1111Job]:
        """A job for as long as somebody waits for it."""
        job = A1111Job(task)
        self._jobs.append(job)
        try:
            yield job
        finally:
            self._jobs.remove(job)

    def current(self, owner: Owner) -> A1111Job | None:
        """The one that is asked about when no job is named."""
        seen = [job for job in self._jobs if owner.may_see(job.task.owner.name)]
        unfinished = (job for job in seen if not job.task.done)
        return next(unfinished, seen[0] if seen else None)

    def stop(self, owner: Owner, *, skip: bool = False) -> None:
        """End the current job; what there is of it is its result."""
        job = self.current(owner)
        if job is not None and not job.task.done:
            job.skipped, job.interrupted = skip, not skip
            job.task.cancel()
