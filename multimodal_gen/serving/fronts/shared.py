"""One of many fronts over one ledger: takes jobs from it as its engines have room for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from multimodal_gen.client.request_handle import Update
from multimodal_gen.errors import MultimodalGenError, NotFound
from multimodal_gen.messages.pictures import Pixels
from multimodal_gen.serving.fronts.alone import live
from multimodal_gen.serving.fronts.heartbeat import Heartbeat
from multimodal_gen.serving.fronts.mirrors import Mirrors
from multimodal_gen.serving.fronts.news import (
    AnyNews,
    JobAdded,
    JobChanged,
    JobEnded,
    JobsMoved,
    OutputProgress,
    changed,
    moved,
)
from multimodal_gen.serving.fronts.runner import JobRunner
from multimodal_gen.serving.owner import Owner, digest_of
from multimodal_gen.serving.records import JobRecord
from multimodal_gen.serving.storage.persistence import STORAGE_ERRORS, persist
from multimodal_gen.serving.storage.postgres.ledger import ClaimedJob, PostgresLedger, Renewed
from multimodal_gen.serving.task import Task

log = logging.getLogger(__name__)
TELL_S = 0.3
"""Interval at which progress is told to other fronts."""
_SWEEP_S = 600.0
_OVERDUE = 64
"""Jobs without need of an engine that are taken at a time."""
_LOOK_S = 0.5
"""Longest time until a waiting client sees an end whose message was lost."""
_FOLLOWED = 1000
"""Unfinished jobs that are followed from a (re)connection on; others once they move."""


@dataclass(frozen=True)
class _Lease:
    epoch: int
    taken_at: float
    """On a monotonic clock."""


@dataclass(frozen=True)
class _Accepted:
    """A job that this front stored and the last renewal did not count."""

    owner: str
    stored_at: float
    """On a monotonic clock."""


class SharedFront:
    """A Front over a ledger that other fronts use at the same time.

    Jobs wait in the ledger, and are taken by fronts whose engines have room. Without the database
    nothing is taken; what runs goes on, and ends when the database is back, unless another front
    has taken it meanwhile.
    """

    def __init__(self, runner: JobRunner, ledger: PostgresLedger) -> None:
        self.trouble: str | None = None
        self.waiting: Mapping[str, int] = {}
        self.started: list[Callable[[Task], None]] = []
        """Called with the task of each job that other fronts accept or run."""
        self.changes: list[Callable[[str, str], None]] = []
        self._runner = runner
        self._ledger = ledger
        self._mirrors = Mirrors(ledger, self._on_started, self._is_own)
        self._leases: dict[str, _Lease] = {}
        """Of jobs that this front took."""
        self._counted = Counter[str]()
        """Jobs on all fronts, by owner, as of the last renewal."""
        self._recent = frozenset[str]()
        """Ids of those of them that were stored lately."""
        self._accepted: dict[str, _Accepted] = {}
        self._trusted = False
        self._overdue = False
        self._swept_at = -_SWEEP_S
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        self._told: dict[str, list[OutputProgress]] = {}
        self._heartbeat: Heartbeat | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._taking: asyncio.Task[None] | None = None
        self._side: set[asyncio.Task[Any]] = set()

    # -- Front

    async def accept(
        self,
        keep: Callable[[], JobRecord],
        give_up_at: float,
        *,
        count: int,
        owner: Owner,
        pictures: Pixels,
        job_id: str,
    ) -> JobRecord:
        self._runner.service.check_room(count, owner, self._open)
        kept = await persist(keep, lambda: give_up_at)
        if kept.id == job_id:
            if job_id not in self._recent:
                self._accepted[job_id] = _Accepted(owner.name, time.monotonic())
            self._wake.set()
        return kept

    @property
    def _open(self) -> Counter[str]:
        """Jobs on all fronts, by owner: those of the last renewal, and what it did not see."""
        return self._counted + Counter(job.owner for job in self._accepted.values())

    @property
    def alive(self) -> Sequence[str]:
        return [*{**self._mirrors.tasks, **self._runner.tasks}]

    def task(self, job_id: str) -> Task | None:
        return self._runner.tasks.get(job_id) or self._mirrors.tasks.get(job_id)

    def live(self, record: JobRecord) -> JobRecord:
        task = self.task(record.id)
        return record if task is None else live(record, task)

    async def cancel(self, record: JobRecord) -> None:
        if record.done:
            return
        await self._runner.cancel(record.id)
        await asyncio.to_thread(self._ledger.ask_cancel, record.id)
        self._overdue = True
        self._wake.set()
        await self._wait_end(record.id, self._runner.records.check)

    async def ended(self, job_id: str) -> None:
        await self._wait_end(job_id, lambda _: None)

    async def _wait_end(self, job_id: str, check: Callable[[str], None]) -> None:
        """`check` may raise what keeps the job from ending."""
        while True:
            news = self._news
            check(job_id)
            try:
                record = await asyncio.to_thread(self._ledger.get, job_id, None)
            except NotFound:
                return
            if record.done:
                if (run := self._runner.runs.get(job_id)) is not None:
                    await asyncio.wait([run])
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await news.wait()

    def changed(self, record: JobRecord) -> None:
        with contextlib.suppress(*STORAGE_ERRORS):  # others see it when they list their jobs
            self._ledger.tell([changed(record.id, digest_of(record.owner))])

    async def resume(self) -> None:
        """Begin to take jobs."""
        self.watch()
        if self._taking is None:
            self._taking = asyncio.get_running_loop().create_task(self._take_for_ever())
            self._loops.append(self._taking)
        self._wake.set()

    def watch(self) -> None:
        """Begin to follow other fronts, unless that was done."""
        if self._heartbeat is not None:
            return
        self._heartbeat = Heartbeat(self._ledger, self)
        self._loops.append(asyncio.get_running_loop().create_task(self._tell_for_ever()))

    def sweep(self) -> None:
        if time.monotonic() - self._swept_at >= _SWEEP_S:
            self._swept_at = time.monotonic()
            self._runner.stores.spool.keep_only(self._ledger.open_ids())

    async def close(self) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, *self._side, return_exceptions=True)
        if self._heartbeat is not None:
            await self._heartbeat.close()
        with contextlib.suppress(*STORAGE_ERRORS):
            await asyncio.to_thread(self._ledger.release)

    # -- HeartbeatListener

    def connected(self) -> None:
        if self.trouble is not None:
            log.warning("the ledger's database is back")
        self.trouble = None
        self._spawn(self._follow_open())

    def disconnected(self, reason: str) -> None:
        if self.trouble is None:
            log.warning("the ledger's database can't be reached, no jobs are taken: %s", reason)
        self.trouble, self._trusted = reason, False

    def renewed(self, now: Renewed, trusted: bool) -> None:
        self._counted, self._recent, self.waiting = now.open, now.recent, now.waiting
        self._accepted = {
            job_id: job
            for job_id, job in self._accepted.items()
            if job.stored_at > now.asked_at and job_id not in now.recent
        }
        self._trusted, self._overdue = trusted, now.overdue > 0
        for job_id, lease in list(self._leases.items()):
            held = now.held.get(job_id)
            if held is None or held.epoch != lease.epoch:
                if lease.taken_at < now.asked_at:
                    self._lose(job_id)
            elif held.cancel_asked and (task := self._runner.tasks.get(job_id)) is not None:
                task.cancel()
        self._hand_back()
        self._wake.set()

    def heard(self, news: AnyNews) -> None:
        if isinstance(news, JobAdded):
            self._wake.set()
            if news.job:
                self._spawn(self._mirrors.follow(news.job))
        elif isinstance(news, JobEnded):
            self._mirrors.drop(news.job)
            self._wake_waiting()
        elif isinstance(news, JobChanged):
            for hears in self.changes:
                hears(news.job, news.owner)
        elif isinstance(news, JobsMoved) and news.front != self._ledger.front:
            self._spawn(self._move(news))

    # -- taking jobs

    async def _take_for_ever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._take()
            except STORAGE_ERRORS:
                await asyncio.sleep(_LOOK_S)
            except MultimodalGenError as error:
                log.warning("no jobs can be taken: %s", error)
                await asyncio.sleep(_LOOK_S)

    async def _take(self) -> None:
        """Take as many jobs as the engines have room for."""
        if self._overdue:
            self._overdue = False
            for job in await asyncio.to_thread(self._ledger.claim_overdue, _OVERDUE):
                await self._begin(job)
        service = self._runner.service
        for model in [*service.fleet.models]:
            if model.info is not None and (room := service.room(model)):
                claim = partial(self._ledger.claim, room, model.name, take_over=self._trusted)
                for job in await asyncio.to_thread(claim):
                    await self._begin(job)

    async def _begin(self, job: ClaimedJob) -> None:
        record, runner = job.record, self._runner
        if (earlier := runner.runs.get(record.id)) is not None:  # It lost the job, and ends soon.
            await asyncio.wait([earlier])
        self._leases[record.id] = _Lease(job.epoch, time.monotonic())
        if job.cancel_asked:
            runner.spawn(record.id, runner.end_as(record, runner.cancelled(), job.epoch))
        else:
            await runner.take_up(record, job.epoch, job.waited_s)
        self._mirrors.drop(record.id)
        if (run := runner.runs.get(record.id)) is not None:
            run.add_done_callback(lambda _: self._on_end(record.id))
        else:
            self._on_end(record.id)

    def _on_end(self, job_id: str) -> None:
        self._leases.pop(job_id, None)
        self._told.pop(job_id, None)
        self._wake_waiting()
        self._wake.set()

    def _wake_waiting(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _lose(self, job_id: str) -> None:
        """Stop a job that another front has taken: its end would be refused."""
        log.warning("job %s was taken by another front", job_id)
        del self._leases[job_id]
        if (task := self._runner.tasks.get(job_id)) is not None:
            task.cancel()

    def _hand_back(self) -> None:
        """Give jobs that have not begun, and that no engine here can begin, to other fronts."""
        service, tasks = self._runner.service, self._runner.tasks
        able = {
            model.name
            for model in service.fleet.models
            if not service.stopping and (model.status == "ready" or model.on_demand)
        }
        own = [tasks[name] for name in self._leases if name in tasks]
        idle = [task.id for task in own if task.status == "queued" and task.model not in able]
        if idle:
            self._spawn(self._release(idle))

    async def _release(self, job_ids: Sequence[str]) -> None:
        with contextlib.suppress(*STORAGE_ERRORS):
            await asyncio.to_thread(self._ledger.release, job_ids)
            for job_id in job_ids:
                self._leases.pop(job_id, None)
                if (task := self._runner.tasks.get(job_id)) is not None:
                    task.cancel()  # without effect on the job, whose lease is given up

    # -- following other fronts

    async def _follow_open(self) -> None:
        with contextlib.suppress(*STORAGE_ERRORS):
            for record in await asyncio.to_thread(self._ledger.open_jobs, _FOLLOWED):
                self._mirrors.add(record)

    async def _move(self, news: JobsMoved) -> None:
        for job_id, outputs in news.jobs.items():
            if (task := await self._mirrors.follow(job_id)) is not None:
                self._mirrors.move(task, outputs)

    async def _tell_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TELL_S)
            with contextlib.suppress(*STORAGE_ERRORS):
                if news := [*moved(self._ledger.front, self._progress())]:
                    await asyncio.to_thread(self._ledger.tell, news)
                await self._mirrors.check_quiet()

    def _progress(self) -> dict[str, list[OutputProgress]]:
        """Progress of jobs that have moved."""
        changed = {}
        for job_id, task in self._runner.tasks.items():
            now = [_told(update) for update in task.updates]
            if now != self._told.get(job_id):
                changed[job_id] = self._told[job_id] = now
        return changed

    def _is_own(self, job_id: str) -> bool:
        return job_id in self._leases

    def _on_started(self, task: Task) -> None:
        for hears in self.started:
            hears(task)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        side = asyncio.get_running_loop().create_task(work)
        self._side.add(side)
        side.add_done_callback(self._side.discard)


def _told(update: Update) -> OutputProgress:
    place = update.step, update.total, update.queue_position
    return *place, update.eta_s, update.phase, update.batch_size
