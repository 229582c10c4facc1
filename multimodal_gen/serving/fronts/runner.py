"""Runs jobs on this front's engines, each to its end in the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import msgspec

from multimodal_gen.client.request_handle import Output
from multimodal_gen.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineNotReady,
    GenerationFailed,
    MultimodalGenError,
    NotFound,
)
from multimodal_gen.messages.pictures import Pixels
from multimodal_gen.messages.reply import WireError
from multimodal_gen.messages.request import Req
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.records import JobRecord
from multimodal_gen.serving.rendering import Render
from multimodal_gen.serving.service import Service
from multimodal_gen.serving.storage.ledger import Ledger
from multimodal_gen.serving.storage.persistence import STORAGE_ERRORS, RecordWriter, persist
from multimodal_gen.serving.storage.results import ResultStore
from multimodal_gen.serving.storage.spool import PictureStore
from multimodal_gen.serving.storage.steady_clock import SteadyClock, SystemClock
from multimodal_gen.serving.task import Moved, Task
from multimodal_gen.serving.webhooks import Webhooks

log = logging.getLogger(__name__)
RESULTS_PATIENCE_S = 60.0
"""Time for storage to take a job's files, before the job fails."""
_MAX_REASON = 300
_PASSING = (EngineNotReady, *STORAGE_ERRORS)
"""Errors that the next server may not meet."""


@dataclass(frozen=True)
class JobStores:
    """Everything that outlives a server."""

    ledger: Ledger
    results: ResultStore
    spool: PictureStore
    clock: SteadyClock | SystemClock
    webhooks: Webhooks | None = None


@dataclass
class JobRunner:
    """Jobs that this front runs. Runs on one event loop; blocking work is done in threads.

    A job has ended when the ledger says so. Its end is tried until storage takes it, or until the
    ledger says that another front has the job.
    """

    service: Service
    stores: JobStores
    render: Render
    tasks: dict[str, Task] = field(default_factory=dict)
    runs: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """By job: its work here, including the writing of its end."""

    def __post_init__(self) -> None:
        self.records = RecordWriter(self.stores.ledger)

    def begin(
        self, record: JobRecord, pictures: Pixels, epoch: int = 0, waited_s: float = 0.0
    ) -> None:
        """Start a job, which has waited for `waited_s` since it was accepted."""
        task = self.service.start(
            pictures=pictures,
            owner=Owner(record.owner),
            model=record.model,
            task_id=record.id,
            requests=[_later(req, waited_s) for req in record.request.requests],
        )
        self.tasks[record.id] = task
        self.spawn(record.id, self._run(record, task, epoch))

    def spawn(self, job_id: str, work: Coroutine[Any, Any, None]) -> None:
        run = self.runs[job_id] = asyncio.get_running_loop().create_task(work)
        run.add_done_callback(lambda _: self.runs.pop(job_id, None))

    async def take_up(self, record: JobRecord, epoch: int = 0, waited_s: float = 0.0) -> None:
        """Start a stored job, or write why it can't be."""
        try:
            if record.error is not None:  # It can't be read.
                raise record.error.exception()
            for req in record.request.requests:
                _later(req, waited_s)  # also of a model that only other fronts serve
            if not self.service.fleet.has(record.model):
                what = f"it was accepted for {record.model}, which is no longer served"
                raise GenerationFailed(what)
            req = record.request.requests[0]
            pictures = await asyncio.to_thread(self.stores.spool.read, record.id, req)
            if record.status != "queued":  # before it can end
                await self.records.note(record.id, epoch, status="queued", started_at=None)
            self.begin(record, pictures, epoch, waited_s)
        except Exception as error:
            self.spawn(record.id, self.end_as(record, self.end_of(_ours(error)), epoch))

    async def cancel(self, job_id: str) -> None:
        """Cancel a job that runs here, and wait for its end. Raises StorageFull,
        StorageUnavailable."""
        if (task := self.tasks.get(job_id)) is not None:
            task.cancel()
        while (run := self.runs.get(job_id)) is not None:
            await asyncio.wait([run], timeout=0.1)
            self.records.check(job_id)

    async def end_as(self, record: JobRecord, end: dict[str, Any], epoch: int = 0) -> None:
        """Record the end of a job. Cancelled jobs send no webhook."""
        webhooks = self.stores.webhooks
        notice = webhooks is not None and end["status"] != "cancelled"
        outcome = await self.records.end(record.id, epoch, end, notice=notice)
        if outcome == "stored":
            await asyncio.to_thread(self.stores.spool.remove, record)
            if webhooks is not None:
                webhooks.look()
        elif outcome == "lost":
            with contextlib.suppress(*STORAGE_ERRORS):
                await asyncio.to_thread(self._drop_files, record, end.get("files", ()))

    def end_of(self, error: MultimodalGenError, *, cancelled: bool = False) -> dict[str, Any]:
        """Changes to the record of a job that failed."""
        return {
            "status": "cancelled" if cancelled else "failed",
            "completed_at": self.stores.clock.now(),
            "error": WireError.of(error),
        }

    def cancelled(self) -> dict[str, Any]:
        """Changes to the record of a job that a client cancelled before it ran."""
        return self.end_of(Cancelled("the request was cancelled"), cancelled=True)

    # -- one job

    async def _run(self, record: JobRecord, task: Task, epoch: int) -> None:
        try:
            if (end := await self._outcome(record, task, epoch)) is not None:
                await self.end_as(record, end, epoch)
            else:
                await self.records.note(record.id, epoch, status="queued", started_at=None)
        finally:
            self.tasks.pop(record.id, None)

    async def _outcome(self, record: JobRecord, task: Task, epoch: int) -> dict[str, Any] | None:
        """Wait for its files; return changes to its record, or None: the next server resumes it."""
        try:
            await _begun(task)
            started_at = self.stores.clock.now()
            changes = {"status": "in_progress", "started_at": started_at}
            await self.records.note(record.id, epoch, **changes)
            outputs = await task.wait()
            files = await asyncio.to_thread(self.render, record, outputs)
            await self._save(record, files)
            return self._completed(record, outputs, files, started_at)
        except Exception as error:
            if isinstance(error, _PASSING) and self.service.stopping:
                return None
            return self.end_of(_ours(error), cancelled=task.status == "cancelled")

    def _completed(
        self,
        record: JobRecord,
        outputs: Sequence[Output],
        files: Mapping[str, bytes],
        started_at: float,
    ) -> dict[str, Any]:
        now = self.stores.clock.now()
        return {
            "status": "completed",
            "progress": 100,
            "started_at": started_at,
            "completed_at": now,
            "expires_at": expiry(now, self.stores.results.ttl_s),
            "files": tuple(files),
            "request": record.request.answered(outputs),
        }

    async def _save(self, record: JobRecord, files: Mapping[str, bytes]) -> None:
        """Write a job's files. Raises StorageFull and StorageUnavailable, but not soon."""
        fail_at = asyncio.get_running_loop().time() + RESULTS_PATIENCE_S
        await persist(
            partial(self._write, record, files),
            lambda: min(fail_at, self.records.give_up_at()),
            partial(self.records.delayed, record.id),
        )

    # -- threads

    def _write(self, record: JobRecord, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            self.stores.results.write(name, data, record.owner)

    def _drop_files(self, record: JobRecord, names: Sequence[str]) -> None:
        """Remove the files of a run whose job another front has, unless that one uses them: files
        are named by job, and written once."""
        try:
            now = self.stores.ledger.get(record.id, None)
        except NotFound:
            kept: Sequence[str] = ()
        else:
            kept = now.files if now.done else names
        for name in set(names) - set(kept):
            self.stores.results.remove(name, record.owner)


def expiry(completed_at: float, ttl_s: float | None) -> float | None:
    """Return the time at which files of a job are deleted, if that is by age."""
    return None if ttl_s is None else completed_at + ttl_s


def _later(req: Req, waited_s: float) -> Req:
    """The request with what is left of its deadline. Raises DeadlineExceeded."""
    allowed = req.params.deadline_s
    if allowed is None or not waited_s:
        return req
    if waited_s >= allowed:
        raise DeadlineExceeded(f"deadline_s={allowed}: passed while it was queued")
    return msgspec.structs.replace(req, params=replace(req.params, deadline_s=allowed - waited_s))


async def _begun(task: Task) -> None:
    """Wait until the engine has started the task. Raises the task's error."""
    async with contextlib.aclosing(task.events()) as events:
        async for event in events:
            if not isinstance(event, Moved) or task.status != "queued":
                return


def _ours(error: Exception) -> MultimodalGenError:
    if isinstance(error, MultimodalGenError):
        return error
    log.error("job failed", exc_info=error)
    reason = f"{type(error).__name__}: {error}"[:_MAX_REASON]
    return GenerationFailed(f"the result could not be saved: {reason}")
