"""Interface of a front to the jobs of its ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from multimodal_gen.messages.pictures import Pixels
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.records import JobRecord
from multimodal_gen.serving.task import Task


class Front(Protocol):
    """Interface of Jobs to jobs that run here or on other fronts. Runs on one event loop."""

    trouble: str | None
    """Why the ledger can't be used now; None if it can, or if that is not known in advance."""
    waiting: Mapping[str, int]
    """Jobs that no front has taken, by model."""
    started: list[Callable[[Task], None]]
    """Called with the task of each job that another front accepts or runs."""
    changes: list[Callable[[str, str], None]]
    """Called with the id of each ended job that is changed or deleted on any front, and with the
    digest of its owner."""

    def watch(self) -> None:
        """Begin to follow other fronts. Called once, on the event loop, before `resume`."""

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
        """Store a job of `count` requests by `keep`, and see to it that it runs. Raises QueueFull
        and, after `give_up_at`, StorageFull and StorageUnavailable."""

    @property
    def alive(self) -> Sequence[str]:
        """Ids of jobs that are queued, running, or being written."""

    def task(self, job_id: str) -> Task | None:
        """The task that runs a job, or follows it on another front."""

    def live(self, record: JobRecord) -> JobRecord:
        """Add the current progress to the record of an unfinished job."""

    async def cancel(self, record: JobRecord) -> None:
        """Cancel a job wherever it is, and wait for its end. Raises StorageFull,
        StorageUnavailable."""

    async def ended(self, job_id: str) -> None:
        """Wait until the job has ended."""

    def changed(self, record: JobRecord) -> None:
        """Tell `changes` of all fronts that an ended job was changed or deleted. May block."""

    async def resume(self) -> None:
        """Run jobs that wait in the ledger. Called whenever another model is known."""

    def sweep(self) -> None:
        """Remove what killed fronts left. May block."""

    async def close(self) -> None:
        """Stop, and leave jobs that have not ended to other fronts."""
