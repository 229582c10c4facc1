"""Jobs that outlive connections and restarts of the server."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from multimodal_gen.configs.arguments.job_args import JobArgs
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import StorageUnavailable
from multimodal_gen.messages.pictures import NO_PIXELS, Pixels
from multimodal_gen.serving.fronts.alone import OnlyFront
from multimodal_gen.serving.fronts.front import Front
from multimodal_gen.serving.fronts.runner import JobRunner
from multimodal_gen.serving.opening import open_folder, open_shared
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.records import (
    EVERYTHING,
    JobKind,
    JobRecord,
    JobRequest,
    JobSearch,
    PageOrder,
)
from multimodal_gen.serving.rendering import Render, render
from multimodal_gen.serving.service import Service
from multimodal_gen.serving.shelf import Shelf
from multimodal_gen.serving.storage.ledger import IdempotencyKey, Page, same_request
from multimodal_gen.serving.storage.persistence import STORAGE_ERRORS
from multimodal_gen.serving.task import Event, Task

log = logging.getLogger(__name__)
SWEEP_S = 60.0
PATIENCE_S = 2.0
"""Time for the ledger to take a job, before its client is told to come back."""


class Jobs:
    """All jobs of a ledger. Runs on one event loop; blocking work is done in threads.

    A job has ended when the ledger says so; clients see it in progress before that. While its end
    can't be stored, new jobs are refused.
    """

    def __init__(self, runner: JobRunner, front: Front) -> None:
        stores = runner.stores
        self.results, self.webhooks = stores.results, stores.webhooks
        self._service = runner.service
        self._ledger, self._spool, self._clock = stores.ledger, stores.spool, stores.clock
        self._runner = runner
        self._front = front
        self.shelf = Shelf(stores.ledger, stores.results, stores.clock, front.changed)

    @classmethod
    def in_folder(
        cls, folder: Path, service: Service, args: JobArgs, render: Render = render
    ) -> Jobs:
        """Jobs kept in `folder`, which exists. Raises InvalidRequest."""
        ledger, stores = open_folder(folder, args)
        runner = JobRunner(service, stores, render)
        return cls(runner, OnlyFront(runner, ledger))

    @classmethod
    def shared(cls, service: Service, args: ServerArgs, render: Render = render) -> Jobs:
        """Jobs of `args.ledger`, which other servers may use too. Raises InvalidRequest."""
        ledger, stores = open_shared(args)
        from multimodal_gen.serving.fronts.shared import SharedFront  # after psycopg was found

        runner = JobRunner(service, stores, render)
        return cls(runner, SharedFront(runner, ledger))

    # -- API

    async def submit(
        self,
        kind: JobKind,
        params: SamplingParams | Sequence[SamplingParams],
        pictures: Pixels = NO_PIXELS,
        *,
        owner: Owner,
        model: str | None = None,
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
        asked = msgspec.msgpack.encode((kind, params, meta, model))
        key = None
        if idempotency_key is not None:
            key = IdempotencyKey.of(idempotency_key, asked, pictures)
            known = await asyncio.to_thread(self._ledger.find, idempotency_key, owner.name)
            if known is not None:
                return same_request(known, key)
        requests = self._service.resolve(params, pictures, model=model, previews=previews)
        record = JobRecord(
            id=secrets.token_hex(16),
            kind=kind,
            owner=owner.name,
            model=self._service.served(model).name,
            request=JobRequest(requests, meta or {}),
            created_at=self._clock.now(),
        )
        return await self._front.accept(
            partial(self._keep, record, pictures, key),
            give_up_at,
            count=len(requests),
            owner=owner,
            pictures=pictures,
            job_id=record.id,
        )

    async def get(self, job_id: str, owner: Owner) -> JobRecord:
        """Current state of a job. Raises NotFound, also for another owner's job."""
        record = await asyncio.to_thread(self._ledger.get, job_id, owner.seen)
        return self._live(record)

    async def page(
        self,
        owner: Owner,
        kind: JobKind | None = None,
        after: str | None = None,
        limit: int = 20,
        order: PageOrder = "desc",
        search: JobSearch = EVERYTHING,
    ) -> Page:
        """List jobs by time of acceptance. Raises NotFound for an unknown `after`."""
        page = await asyncio.to_thread(
            self._ledger.page, owner.seen, kind, after, limit, order, search
        )
        return Page([self._live(record) for record in page.records], page.has_more)

    async def cancel(self, job_id: str, owner: Owner) -> JobRecord:
        """Cancel a job; its record is kept. Raises NotFound, StorageFull, StorageUnavailable."""
        await self._front.cancel(await self.get(job_id, owner))
        return await self.get(job_id, owner)

    async def delete(self, job_id: str, owner: Owner) -> JobRecord:
        """Cancel and delete a job; returns its last record. Raises like `cancel`."""
        record = await self.get(job_id, owner)
        await self._front.cancel(record)
        await asyncio.to_thread(self._forget, job_id)
        return record

    @property
    def alive(self) -> Sequence[str]:
        """Ids of jobs that are queued, running, or being written."""
        return self._front.alive

    def task(self, job_id: str) -> Task | None:
        """Task that runs the job, while it is queued or running."""
        return self._front.task(job_id)

    @property
    def trouble(self) -> str | None:
        """Why the ledger can't be used now, if that is known."""
        return self._front.trouble

    @property
    def waiting(self) -> Mapping[str, int]:
        """Jobs that no front has taken, by model."""
        return self._front.waiting

    async def follow(self, job_id: str, owner: Owner) -> AsyncGenerator[Event, None]:
        """Yield the job's events like Task.events; nothing if it has ended. Raises NotFound and the
        job's error."""
        record = await self.get(job_id, owner)
        if (task := self.task(job_id)) is not None:
            async for event in task.events():
                yield event
            if task.ended_elsewhere:
                record = await self.get(job_id, owner)
        if record.error is not None:
            raise record.error.exception()

    async def finished(self, job_id: str, owner: Owner) -> JobRecord:
        """Wait until the job has ended and its files are written. Raises NotFound."""
        await self.get(job_id, owner)
        await self._front.ended(job_id)
        return await self.get(job_id, owner)

    def on_started(self, hears: Callable[[Task], None]) -> None:
        """Have `hears` called with the task of each job that another front accepts or runs; those
        of this front are told to the service's observers."""
        self._front.started.append(hears)

    def on_changed(self, hears: Callable[[str, str], None]) -> None:
        """Have `hears` called with the id of each ended job that is changed or deleted, on any
        front, and the digest of its owner's name."""
        self._front.changes.append(hears)

    # -- start and stop of the server

    def watch(self) -> None:
        """Begin to follow other fronts. Called once, on the event loop."""
        self._front.watch()

    async def resume(self) -> None:
        """Restart jobs that an earlier server left, in order. Called whenever another model is
        known."""
        await self._front.resume()

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
        self._runner.records.stop_soon()
        await asyncio.gather(*self._runner.runs.values(), return_exceptions=True)
        await self._front.close()
        await asyncio.to_thread(self._ledger.close)

    # -- one job

    def _live(self, record: JobRecord) -> JobRecord:
        return record if record.done else self._front.live(record)

    # -- threads

    def _keep(self, record: JobRecord, pictures: Pixels, key: IdempotencyKey | None) -> JobRecord:
        kept = None
        try:
            self._spool.write(record.id, pictures)
            kept = self._ledger.add(record, key)
        except StorageUnavailable:
            if self._ledger.add_is_certain:
                self._spool.remove(record)
            raise
        except Exception:
            self._spool.remove(record)
            raise
        if kept.id != record.id:
            self._spool.remove(record)
        return kept

    def _forget(self, job_id: str) -> None:
        self.shelf.remove(self._ledger.get(job_id, None))

    def _sweep(self) -> None:
        self._clock.mark()
        self.shelf.tidy()
        self._front.sweep()
