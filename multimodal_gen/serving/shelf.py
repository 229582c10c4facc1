"""Results of ended jobs: stars, deletion one by one, and the space that they take."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from multimodal_gen.errors import NotFound
from multimodal_gen.serving.fronts.runner import expiry
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.records import JobRecord
from multimodal_gen.serving.storage.eviction import StorageUse
from multimodal_gen.serving.storage.ledger import Ledger, StoredFiles
from multimodal_gen.serving.storage.results import ResultStore
from multimodal_gen.serving.storage.steady_clock import SteadyClock, SystemClock

RECORDS_KEPT_S = 7 * 86400
"""Time that a finished job stays known after its files were deleted."""
_COMPARED_EVERY_S = 600.0
_NEW_S = 60.0
"""Age from which a job's files must be in the store if they ever were."""


class Shelf:
    """Changes results of ended jobs. All methods may block, and are thread-safe; they raise
    StorageFull and StorageUnavailable.

    Files go before records: what is left by a crash is a job whose results are gone, and that can
    be deleted again.
    """

    def __init__(
        self,
        ledger: Ledger,
        results: ResultStore,
        clock: SteadyClock | SystemClock,
        changed: Callable[[JobRecord], None],
    ) -> None:
        """`changed` hears of each record that was changed, or deleted."""
        self._ledger, self._results, self._clock = ledger, results, clock
        self._changed = changed
        self._compared_at = -_COMPARED_EVERY_S

    def get(self, job_id: str, owner: Owner) -> JobRecord:
        """Return the record of a job. Raises NotFound, also for another owner's."""
        return self._ledger.get(job_id, owner.seen)

    def star(self, job_id: str, index: int, owner: Owner, *, starred: bool) -> JobRecord:
        """Star an output, or take its star away. Raises NotFound, also before the job
        has completed."""

        def change(record: JobRecord) -> Mapping[str, Any]:
            _check(record, index)
            others = {each for each in record.starred if each != index}
            return {"starred": tuple(sorted(others | ({index} if starred else set())))}

        record = self._ledger.revise(job_id, owner.seen, change)
        self._changed(record)
        return record

    def remove_output(self, job_id: str, index: int, owner: Owner) -> JobRecord:
        """Delete one output of a completed job, and the job with its last one; returns the record
        as it is now. Raises like `star`."""
        record = self._ledger.get(job_id, owner.seen)
        _check(record, index)
        for name in record.files_of(index):
            self._results.remove(name, record.owner)

        def change(record: JobRecord) -> Mapping[str, Any]:
            gone = record.files_of(index)
            return {
                "files": tuple(name for name in record.files if name not in gone),
                "starred": tuple(each for each in record.starred if each != index),
            }

        record = self._ledger.revise(job_id, owner.seen, change)
        if not record.files:
            self._ledger.delete(job_id)
        self._changed(record)
        return record

    def remove(self, record: JobRecord) -> None:
        """Delete an ended job with its files."""
        for name in record.files:
            self._results.remove(name, record.owner)
        self._ledger.delete(record.id)
        self._changed(record)

    def use(self, owner: Owner) -> StorageUse:
        """Return how much of an owner's space is used, and what goes next."""
        return self._results.use(owner.name)

    def tidy(self) -> None:
        """Delete what is too old or too much, and say so in the records."""
        self._results.sweep()
        if time.monotonic() - self._compared_at >= _COMPARED_EVERY_S:
            self._compared_at = time.monotonic()
            self._compare()
        self._ledger.forget(self._clock.now() - self._clock.jump - RECORDS_KEPT_S)

    def _compare(self) -> None:
        """Have records name only files that are in the store, and tell when they expire."""
        now = self._clock.now()
        if (held := self._results.held()) is None:
            return
        for stored in self._ledger.stored_files():
            if stored.completed_at < now - _NEW_S and (changes := self._news(stored, held, now)):
                with contextlib.suppress(NotFound):  # deleted meanwhile
                    self._ledger.revise(stored.job, None, partial(_without, changes))

    def _news(self, stored: StoredFiles, held: Collection[str], now: float) -> dict[str, Any]:
        left = tuple(name for name in stored.files if name in held)
        if left:
            expires_at = expiry(stored.completed_at, self._results.ttl_s)
        else:  # Its record tells of it for a while.
            left, expires_at = stored.files, min(stored.expires_at or now, now)
        now_stored = {"files": stored.files, "expires_at": stored.expires_at}
        wanted = {"files": left, "expires_at": expires_at}
        return {} if wanted == now_stored else wanted


def _without(changes: Mapping[str, Any], record: JobRecord) -> Mapping[str, Any]:
    """Return the changes, without files that were deleted meanwhile."""
    return {**changes, "files": tuple(name for name in record.files if name in changes["files"])}


def _check(record: JobRecord, index: int) -> None:
    """Raise NotFound for an output that is not made, or was deleted."""
    if record.status != "completed":
        raise NotFound(f"job {record.id} has no results: it is {record.status}")
    if not record.has(index):
        raise NotFound(f"job {record.id} has no output {index}")
