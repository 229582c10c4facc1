"""Jobs that outlive connections and restarts of the server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from multimodal_gen.client.request_handle import warnings_of
from multimodal_gen.configs.arguments.job_args import JobArgs
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import Cancelled, EngineNotReady, GenerationFailed, MultimodalGenError
from multimodal_gen.messages.pictures import Pixels
from multimodal_gen.messages.reply import WireError
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.records import JobKind, JobRecord, JobRequest, PageOrder
from multimodal_gen.serving.rendering import Render, render
from multimodal_gen.serving.service import NO_PIXELS, Service
from multimodal_gen.serving.storage.data_folder import usable
from multimodal_gen.serving.storage.ledger import (
    IdempotencyKey,
    Ledger,
    Page,
    SqliteLedger,
    same_request,
)
from multimodal_gen.serving.storage.persistence import STORAGE_ERRORS, RecordWriter, persist
from multimodal_gen.serving.storage.results import Results
from multimodal_gen.serving.storage.spool import Spool
from multimodal_gen.serving.storage.steady_clock import SteadyClock
from multimodal_gen.serving.task import Event, Moved, Task
from multimodal_gen.serving.webhooks import Webhooks

log = logging.getLogger(__name__)
RECORDS_KEPT_S = 7 * 86400
"""Time that a finished job stays known after its files were deleted."""
SWEEP_S = 60.0
PATIENCE_S = 2.0
"""Time for the ledger to take a job, before its client is told to come back."""
RESULTS_PATIENCE_S = 60.0
"""Time for the disk to take a job's files, before the job fails."""
_MAX_REASON = 300

_PASSING = (EngineNotReady, *STORAGE_ERRORS)
"""Errors that the next server may not meet."""


class Jobs:
    """All jobs of a server. Runs on one event loop; blocking work is done in threads.

    A job has ended when the ledger says so. Its end is tried until storage takes it; clients see it
    in progress meanwhile, and new jobs are refused.
    """

    def __init__(
        self,
        service: Service,
        ledger: Ledger,
        results: Results,
        spool: Spool,
        clock: SteadyClock,
        render: Render = render,
        webhooks: Webhooks | None = None,
    ) -> None:
        self.results = results
        self.webhooks = webhooks
        self._service = service
        self._ledger = ledger
        self._spool = spool
        self._clock = clock
        self._render = render
        self._tasks: dict[str, Task] = {}
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._records = RecordWriter(ledger)
        self._in_order = asyncio.Lock()

    @classmethod
    def in_folder(cls, folder: Path, service: Service, args: JobArgs) -> Jobs:
        """Those kept in `folder`, which exists. Raises InvalidRequest."""
        with usable(folder):
            clock = SteadyClock(folder / "clock")
            results = Results(
                folder,
                ttl_s=args.result_ttl,
                quota_gb=args.result_quota_gb,
                clock=clock.now,
                jump=clock.jump,
            )
            spool = Spool(folder)
        ledger, webhooks = SqliteLedger(folder / "jobs.sqlite"), None
        if args.webhook_url is not None:
            webhooks = Webhooks(ledger, args.webhook_url, args.webhook_secret or "")
        return cls(service, ledger, results, spool, clock=clock, webhooks=webhooks)

    # -- API

    async def submit(
        self,
        kind: JobKind,
        params: SamplingParams | Sequence[SamplingParams],
        pictures: Pixels = NO_PIXELS,
        *,
        owner: Owner,
        meta: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
        previews: bool = False,
    ) -> JobRecord:
        """Accept a job. Once this returns, the job survives a restart of this process.

        `meta` is plain data of the protocol. An idempotency key that the owner already used returns
        the earlier job. Raises InvalidRequest, QueueFull, EngineNotReady, Conflict, StorageFull,
        StorageUnavailable.
        """
        give_up_at = asyncio.get_running_loop().time() + PATIENCE_S
        asked = msgspec.msgpack.encode((kind, params, meta))
        key = None
        if idempotency_key is not None:
            key = IdempotencyKey.of(idempotency_key, asked, pictures)
            known = await asyncio.to_thread(self._ledger.find, idempotency_key, owner.name)
            if known is not None:
                return same_request(known, key)
        requests = self._service.resolve(params, pictures, previews=previews)
        record = JobRecord(
            id=secrets.token_hex(16),
            kind=kind,
            owner=owner.name,
            model=self._service.model.name,
            request=JobRequest(requests, meta or {}),
            created_at=self._clock.now(),
        )
        async with self._in_order:
            self._service.check_room(len(requests), owner)
            keep = partial(self._keep, record, pictures, key)
            kept = await persist(keep, lambda: give_up_at)
            if kept.id == record.id:
                self._begin(kept, pictures)
        return kept

    async def get(self, job_id: str, owner: Owner) -> JobRecord:
        """Current state of a job. Raises NotFound, also for another owner's job."""
        record = await asyncio.to_thread(self._ledger.get, job_id, _seen_by(owner))
        return self._live(record)

    async def page(
        self,
        owner: Owner,
        kind: JobKind | None = None,
        after: str | None = None,
        limit: int = 20,
        order: PageOrder = "desc",
    ) -> Page:
        """List jobs by time of acceptance. Raises NotFound for an unknown `after`."""
        page = await asyncio.to_thread(
            self._ledger.page, _seen_by(owner), kind, after, limit, order
        )
        return Page([self._live(record) for record in page.records], page.has_more)

    async def cancel(self, job_id: str, owner: Owner) -> JobRecord:
        """Cancel a job; its record is kept. Raises NotFound, StorageFull, StorageUnavailable."""
        await self._end(await self.get(job_id, owner))
        return await self.get(job_id, owner)

    async def delete(self, job_id: str, owner: Owner) -> JobRecord:
        """Cancel and delete a job; returns its last record. Raises like `cancel`."""
        record = await self.get(job_id, owner)
        await self._end(record)
        await asyncio.to_thread(self._forget, job_id)
        return record

    @property
    def alive(self) -> Sequence[str]:
        """Ids of jobs that are queued, running, or being written."""
        return [*self._tasks]

    def task(self, job_id: str) -> Task | None:
        """Task that runs the job, while it is queued or running."""
        return self._tasks.get(job_id)

    async def follow(self, job_id: str, owner: Owner) -> AsyncGenerator[Event, None]:
        """Yield the job's events like Task.events; nothing if it has ended. Raises NotFound and the
        job's error."""
        record = await self.get(job_id, owner)
        if (task := self._tasks.get(job_id)) is not None:
            async for event in task.events():
                yield event
        elif record.error is not None:
            raise record.error.exception()

    async def finished(self, job_id: str, owner: Owner) -> JobRecord:
        """Wait until the job has ended and its files are written. Raises NotFound."""
        await self.get(job_id, owner)
        if (run := self._runs.get(job_id)) is not None:
            await asyncio.wait([run])
        return await self.get(job_id, owner)

    # -- start and stop of the server

    async def resume(self) -> None:
        """Restart jobs that an earlier server left, in order. Called once, when a model is
        ready."""
        try:
            model = self._service.model.name
        except EngineNotReady:  # The server stops: the next one resumes them.
            return
        async with self._in_order:
            own = {*self._runs}  # While the others are taken up some of these may end.
            left = await persist(self._ledger.unfinished, self._records.give_up_at)
            await asyncio.to_thread(self._spool.keep_only, {record.id for record in left})
            for record in left:
                if record.id not in own:
                    await self._take_up(record, model)
            failed = [run for name, run in self._runs.items() if name not in self._tasks]
        if failed:
            await asyncio.wait(failed)

    async def sweep(self) -> None:
        """Delete expired files and records, now and every minute, until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self._sweep)
            except STORAGE_ERRORS as error:  # no reason to stop
                log.warning("expired results and records can't be deleted now: %s", error)
            except Exception:
                log.exception("deleting expired results failed")
            await asyncio.sleep(SWEEP_S)

    async def close(self) -> None:
        """Call after the service has stopped: leaves unfinished jobs to the next server."""
        self._records.stop_soon()
        await asyncio.gather(*self._runs.values(), return_exceptions=True)
        await asyncio.to_thread(self._ledger.close)

    # -- one job

    def _begin(self, record: JobRecord, pictures: Pixels) -> None:
        owner = Owner(record.owner)
        task = self._service.start(
            pictures=pictures, owner=owner, task_id=record.id, requests=record.request.requests
        )
        self._tasks[record.id] = task
        self._spawn(record.id, self._run(record, task))

    def _spawn(self, job_id: str, work: Coroutine[Any, Any, None]) -> None:
        run = self._runs[job_id] = asyncio.get_running_loop().create_task(work)
        run.add_done_callback(lambda _: self._runs.pop(job_id, None))

    async def _take_up(self, record: JobRecord, model: str) -> None:
        try:
            if record.error is not None:  # It can't be read.
                raise record.error.exception()
            if record.model != model:
                what = f"it was accepted for {record.model}, which is no longer served"
                raise GenerationFailed(what)
            req = record.request.requests[0]
            pictures = await asyncio.to_thread(self._spool.read, record.id, req)
            if record.status != "queued":  # before it can end
                await self._records.note(record.id, status="queued", started_at=None)
            self._begin(record, pictures)
        except Exception as error:
            self._spawn(record.id, self._end_as(record, self._end_of(_ours(error))))

    async def _run(self, record: JobRecord, task: Task) -> None:
        try:
            if (end := await self._outcome(record, task)) is not None:
                await self._end_as(record, end)
            else:
                await self._records.note(record.id, status="queued", started_at=None)
        finally:
            self._tasks.pop(record.id, None)

    async def _outcome(self, record: JobRecord, task: Task) -> dict[str, Any] | None:
        """Wait for its files; return changes to its record, or None: the next server resumes it."""
        try:
            await _begun(task)
            started_at = self._clock.now()
            await self._records.note(record.id, status="in_progress", started_at=started_at)
            outputs = await task.wait()
            files = await asyncio.to_thread(self._render, record, outputs)
            await self._save(record, files)
        except Exception as error:
            if isinstance(error, _PASSING) and self._service.health().phase == "stopping":
                return None
            return self._end_of(_ours(error), cancelled=task.status == "cancelled")
        now = self._clock.now()
        return {
            "status": "completed",
            "progress": 100,
            "started_at": started_at,
            "completed_at": now,
            "expires_at": now + self.results.ttl_s,
            "files": tuple(files),
            "request": record.request.warned(warnings_of(outputs)),
        }

    async def _save(self, record: JobRecord, files: Mapping[str, bytes]) -> None:
        """Write a job's files. Raises StorageFull and StorageUnavailable, but not soon."""
        fail_at = asyncio.get_running_loop().time() + RESULTS_PATIENCE_S
        await persist(
            partial(self._write, record, files),
            lambda: min(fail_at, self._records.give_up_at()),
            partial(self._records.delayed, record.id),
        )

    def _end_of(self, error: MultimodalGenError, *, cancelled: bool = False) -> dict[str, Any]:
        """Changes to the record of a job that failed."""
        return {
            "status": "cancelled" if cancelled else "failed",
            "completed_at": self._clock.now(),
            "error": WireError.of(error),
        }

    async def _end_as(self, record: JobRecord, end: dict[str, Any]) -> None:
        """Record the end of a job. Cancelled jobs send no webhook."""
        notice = self.webhooks is not None and end["status"] != "cancelled"
        if await self._records.end(record.id, end, notice=notice):
            await asyncio.to_thread(self._spool.remove, record)
            if self.webhooks is not None:
                self.webhooks.look()

    async def _end(self, record: JobRecord) -> None:
        """Cancel a job, and wait for its end. Raises StorageFull, StorageUnavailable."""
        if not record.done and record.id not in self._runs:
            await self._end_left(record.id)
        if (task := self._tasks.get(record.id)) is not None:
            task.cancel()
        while (run := self._runs.get(record.id)) is not None:
            await asyncio.wait([run], timeout=0.1)
            self._records.check(record.id)

    async def _end_left(self, job_id: str) -> None:
        """Begin to end an earlier server's job, unless it is taken up."""
        async with self._in_order:
            record = await asyncio.to_thread(self._ledger.get, job_id, None)
            if job_id not in self._runs and not record.done:
                end = self._end_of(Cancelled("the request was cancelled"), cancelled=True)
                self._spawn(job_id, self._end_as(record, end))

    def _live(self, record: JobRecord) -> JobRecord:
        """Add the current progress, which the ledger does not store."""
        if record.done:
            return record
        task = self._tasks.get(record.id)
        if task is None or task.status == "queued":  # an earlier server may have started it
            return record.updated(status="queued", progress=0)
        return record.updated(status="in_progress", progress=int(99 * task.progress.fraction))

    # -- threads

    def _keep(self, record: JobRecord, pictures: Pixels, key: IdempotencyKey | None) -> JobRecord:
        kept = None
        try:
            self._spool.write(record.id, pictures)
            kept = self._ledger.add(record, key)
        finally:
            if kept is None or kept.id != record.id:
                self._spool.remove(record)
        return kept

    def _write(self, record: JobRecord, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            self.results.write(name, data, record.owner)

    def _forget(self, job_id: str) -> None:
        record = self._ledger.get(job_id, None)
        self._ledger.delete(job_id)
        for name in record.files:
            self.results.remove(name)

    def _sweep(self) -> None:
        self._clock.mark()
        self.results.sweep()
        now = self._clock.now() - self._clock.jump
        self._ledger.forget(now - self.results.ttl_s - RECORDS_KEPT_S)


async def _begun(task: Task) -> None:
    """Wait until the engine has started the task. Raises the task's error."""
    async with contextlib.aclosing(task.events()) as events:
        async for event in events:
            if not isinstance(event, Moved) or task.status != "queued":
                return


def _seen_by(owner: Owner) -> str | None:
    return None if owner.admin else owner.name


def _ours(error: Exception) -> MultimodalGenError:
    if isinstance(error, MultimodalGenError):
        return error
    log.error("job failed", exc_info=error)
    reason = f"{type(error).__name__}: {error}"[:_MAX_REASON]
    return GenerationFailed(f"the result could not be saved: {reason}")
