"""Running jobs of A1111 clients, for `/progress` and `/interrupt`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

from multimodal_gen.configs.second_pass import expected_steps
from multimodal_gen.messages.request import preview_stride
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.task import Task


class A1111Job:
    """One txt2img or img2img request."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.timestamp = time.strftime("%Y%m%d%H%M%S")
        self.interrupted = False
        self.skipped = False
        self._furthest = 0.0
        self._stopping: asyncio.Task[None] | None = None

    @property
    def stopped(self) -> bool:
        return self.interrupted or self.skipped

    def stop(self, *, skip: bool) -> None:
        """Stop it with what there is: a running one that has shown nothing yet goes on until it
        has."""
        self.skipped, self.interrupted = skip, not skip
        if self.task.status == "queued" or self._has_pictures():
            self.task.cancel()
        else:
            self._stopping = asyncio.create_task(self._stop_once_shown())

    async def _stop_once_shown(self) -> None:
        """Stop at the next preview, or if it is overdue: some models have none."""
        began = self.task.progress
        last = began.step + preview_stride(began.total)
        async for _ in self.task.changes():
            if self._has_pictures() or self.task.progress.step > last:
                self.task.cancel()

    def _has_pictures(self) -> bool:
        return bool(self.task.previews) or any(each is not None for each in self.task.outputs)

    def fraction(self) -> float:
        """Progress from 0 to 1. It never decreases: while a job is replayed, it does not change."""
        self._furthest = max(self._furthest, self.task.progress.fraction)
        return self._furthest

    def state(self) -> dict[str, Any]:
        """State in the format of `/progress`."""
        steps = expected_steps(self.task.requests[0].params)
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
"""State when no job is running."""


class RunningJobs:
    """Running jobs, oldest first. The web UI supports one job at a time: here each owner's
    oldest."""

    def __init__(self) -> None:
        self._jobs: list[A1111Job] = []

    @contextlib.contextmanager
    def under_way(self, task: Task) -> Iterator[A1111Job]:
        """Register a job while a client waits for it."""
        job = A1111Job(task)
        self._jobs.append(job)
        try:
            yield job
        finally:
            self._jobs.remove(job)

    def current(self, owner: Owner) -> A1111Job | None:
        """Job used when a request names none."""
        seen = [job for job in self._jobs if owner.may_see(job.task.owner.name)]
        unfinished = (job for job in seen if not job.task.done)
        return next(unfinished, seen[0] if seen else None)

    def stop(self, owner: Owner, *, skip: bool = False) -> None:
        """Stop the current job; its result is what is done so far."""
        job = self.current(owner)
        if job is not None and not job.task.done:
            job.stop(skip=skip)
