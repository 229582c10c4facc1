"""Writes to the ledger that wait until storage takes them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar

from multimodal_gen.client.request_handle import copy_of
from multimodal_gen.errors import MultimodalGenError, StorageFull, StorageUnavailable
from multimodal_gen.serving.storage.ledger import Ledger

log = logging.getLogger(__name__)
T = TypeVar("T")
EndOutcome = Literal["stored", "left", "lost"]
"""What became of a job's end: it is in the ledger; it is not, and the next server runs the job
again; or the job is another front's, so that this end has no effect."""
STORAGE_ERRORS = (StorageFull, StorageUnavailable)
LAST_TRIES_S = 10.0
"""Time for the ledger to take the ends of jobs when the server stops."""
_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 1.0


async def persist(
    write: Callable[[], T],
    give_up_at: Callable[[], float],
    failing: Callable[[MultimodalGenError], None] = lambda _: None,
) -> T:
    """Run `write` in a thread, again and again while storage fails, and return its result.

    After `give_up_at()`, a time of the loop, a failure is raised: StorageFull or
    StorageUnavailable. `failing` hears of each failure before that.
    """
    loop, delay = asyncio.get_running_loop(), _FIRST_DELAY_S
    while True:
        try:
            return await asyncio.to_thread(write)
        except STORAGE_ERRORS as error:
            if loop.time() >= give_up_at():
                raise
            failing(error)
        await asyncio.sleep(min(delay, max(0.0, give_up_at() - loop.time())))
        delay = min(2 * delay, _LONGEST_DELAY_S)


class RecordWriter:
    """Changes records of jobs, and remembers which ends storage has not taken yet."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: dict[str, MultimodalGenError] = {}
        """By job: why its end is not stored."""
        self._give_up_at = math.inf

    async def end(
        self, job_id: str, epoch: int, end: dict[str, Any], *, notice: bool
    ) -> EndOutcome:
        """Write the end of a job, however long storage refuses it, until the server stops."""
        write = partial(self._ledger.end, job_id, epoch, notice=notice, **end)
        try:
            ours = await persist(write, self.give_up_at, partial(self.delayed, job_id))
        except STORAGE_ERRORS as error:
            log.error("job %s is left to the next server: %s", job_id, error)
            return "left"
        finally:
            self._waiting.pop(job_id, None)
        if not ours:
            log.info("job %s is another front's, or was deleted: its end is dropped", job_id)
        return "stored" if ours else "lost"

    async def note(self, job_id: str, epoch: int, **changes: Any) -> None:
        """Change a record if storage allows it now: the job's end will say all that matters."""
        with contextlib.suppress(*STORAGE_ERRORS):
            await asyncio.to_thread(self._ledger.update, job_id, epoch, **changes)

    def delayed(self, job_id: str, error: MultimodalGenError) -> None:
        """Remember why a job has not ended yet."""
        if job_id not in self._waiting:
            log.warning("the end of job %s can't be stored yet: %s", job_id, error)
        self._waiting[job_id] = error

    def check(self, job_id: str) -> None:
        """Raise StorageFull or StorageUnavailable if that keeps the job from ending."""
        if (error := self._waiting.get(job_id)) is not None:
            raise copy_of(error)

    def give_up_at(self) -> float:
        """Time of the loop after which nothing is tried again."""
        return self._give_up_at

    def stop_soon(self) -> None:
        self._give_up_at = asyncio.get_running_loop().time() + LAST_TRIES_S
