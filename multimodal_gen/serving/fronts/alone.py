"""The only front of its ledger: it runs every job from the moment that it is accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from multimodal_gen.messages.pictures import Pixels
from multimodal_gen.serving.fronts.runner import JobRunner
from multimodal_gen.serving.owner import Owner, digest_of
from multimodal_gen.serving.records import JobRecord
from multimodal_gen.serving.storage.persistence import persist
from multimodal_gen.serving.storage.sqlite_ledger import SqliteLedger
from multimodal_gen.serving.task import Task


class OnlyFront:
    """A Front over a ledger that no other server uses."""

    trouble: str | None = None
    waiting: Mapping[str, int] = MappingProxyType({})

    def __init__(self, runner: JobRunner, ledger: SqliteLedger) -> None:
        self.started: list[Callable[[Task], None]] = []
        self.changes: list[Callable[[str, str], None]] = []
        self._runner = runner
        self._ledger = ledger
        self._in_order = asyncio.Lock()

    def watch(self) -> None: ...

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
        async with self._in_order:
            self._runner.service.check_room(count, owner)
            kept = await persist(keep, lambda: give_up_at)
            if kept.id == job_id:
                self._runner.begin(kept, pictures)
        return kept

    @property
    def alive(self) -> Sequence[str]:
        return [*self._runner.tasks]

    def task(self, job_id: str) -> Task | None:
        return self._runner.tasks.get(job_id)

    def live(self, record: JobRecord) -> JobRecord:
        task = self._runner.tasks.get(record.id)
        if task is None:  # an earlier server may have started it
            return record.updated(status="queued", progress=0)
        return live(record, task)

    async def cancel(self, record: JobRecord) -> None:
        if not record.done and record.id not in self._runner.runs:
            await self._end_left(record.id)
        await self._runner.cancel(record.id)

    async def ended(self, job_id: str) -> None:
        if (run := self._runner.runs.get(job_id)) is not None:
            await asyncio.wait([run])

    def changed(self, record: JobRecord) -> None:
        for hears in self.changes:
            hears(record.id, digest_of(record.owner))

    async def resume(self) -> None:
        """Restart jobs that an earlier server left, in order; those of models that may still come
        are left until then."""
        runner, service = self._runner, self._runner.service
        if service.stopping:  # The next server resumes them.
            return
        async with self._in_order:
            own = {*runner.runs}  # While the others are taken up some of these may end.
            left = await persist(self._ledger.unfinished, runner.records.give_up_at)
            spool = runner.stores.spool
            await asyncio.to_thread(spool.keep_only, {record.id for record in left})
            for record in left:
                if record.id not in own and service.fleet.is_decided(record.model):
                    await runner.take_up(record)
            failed = [run for name, run in runner.runs.items() if name not in runner.tasks]
        if failed:
            await asyncio.wait(failed)

    def sweep(self) -> None:
        """Does nothing: `resume` does it."""

    async def close(self) -> None: ...

    async def _end_left(self, job_id: str) -> None:
        """Begin to end an earlier server's job, unless it is taken up."""
        runner = self._runner
        async with self._in_order:
            record = await asyncio.to_thread(self._ledger.get, job_id, None)
            if job_id not in runner.runs and not record.done:
                runner.spawn(job_id, runner.end_as(record, runner.cancelled()))


def live(record: JobRecord, task: Task) -> JobRecord:
    """Add the current progress, which the ledger does not store."""
    if task.status == "queued":
        return record.updated(status="queued", progress=0)
    return record.updated(status="in_progress", progress=int(99 * task.progress.fraction))
