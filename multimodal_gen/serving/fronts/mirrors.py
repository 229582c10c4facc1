"""Progress of jobs that run on other fronts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from multimodal_gen.client.request_handle import Update
from multimodal_gen.errors import NotFound
from multimodal_gen.serving.fronts.news import OutputProgress
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.records import JobRecord
from multimodal_gen.serving.storage.ledger import Ledger
from multimodal_gen.serving.storage.persistence import STORAGE_ERRORS
from multimodal_gen.serving.task import Task

log = logging.getLogger(__name__)
MAX_MIRRORS = 10_000
QUIET_S = 5.0
"""A job of which nothing was heard for so long is looked up: messages may be lost."""


class Mirrors:
    """Tasks that follow jobs of other fronts, by what those tell. Runs on one event loop."""

    def __init__(
        self, ledger: Ledger, started: Callable[[Task], None], is_own: Callable[[str], bool]
    ) -> None:
        """`started` hears of each job once; jobs that this front runs need no mirror."""
        self.tasks: dict[str, Task] = {}
        self._ledger = ledger
        self._started = started
        self._is_own = is_own
        self._heard_at: dict[str, float] = {}

    async def follow(self, job_id: str) -> Task | None:
        """The task of a job, made if there is none; None if the job has ended."""
        if self._is_own(job_id):
            return None
        if job_id not in self.tasks and len(self.tasks) < MAX_MIRRORS:
            try:
                self.add(await asyncio.to_thread(self._ledger.get, job_id, None))
            except (NotFound, *STORAGE_ERRORS):
                return None
        return self.tasks.get(job_id)

    def add(self, record: JobRecord) -> None:
        """Follow a job, unless it is this front's, has ended or can't be read."""
        if record.done or record.error is not None or record.id in self.tasks:
            return
        if self._is_own(record.id):
            return
        task = Task(
            record.id,
            Owner(record.owner),
            record.request.requests,
            lambda _: None,
            model=record.model,
        )
        self.tasks[record.id] = task
        self._heard_at[record.id] = time.monotonic()
        self._started(task)

    def move(self, task: Task, outputs: Sequence[OutputProgress]) -> None:
        """Apply the progress of each output."""
        self._heard_at[task.id] = time.monotonic()
        for index, (req, progress) in enumerate(zip(task.requests, outputs, strict=False)):
            step, total, place, eta_s, phase, mates = progress
            update = Update(req.id, step, total, place, eta_s, None, phase, batch_size=mates)
            task.receive(index, update)

    def drop(self, job_id: str) -> None:
        if (task := self.tasks.pop(job_id, None)) is not None:
            task.end_elsewhere()
        self._heard_at.pop(job_id, None)

    async def check_quiet(self) -> None:
        """Drop jobs that have ended without this front hearing of it."""
        before = time.monotonic() - QUIET_S
        for job_id in [name for name, at in self._heard_at.items() if at < before]:
            self._heard_at[job_id] = time.monotonic()
            try:
                record = await asyncio.to_thread(self._ledger.get, job_id, None)
            except NotFound:
                self.drop(job_id)
            except STORAGE_ERRORS:
                return
            else:
                if record.done:
                    self.drop(job_id)
