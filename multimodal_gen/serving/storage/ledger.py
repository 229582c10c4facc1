"""Interface of the ledger: stores accepted jobs and their outcomes, before clients hear of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from multimodal_gen.errors import Conflict
from multimodal_gen.messages.pictures import Pixels
from multimodal_gen.serving.records import (
    EVERYTHING,
    JobKind,
    JobRecord,
    JobSearch,
    PageOrder,
)


@dataclass(frozen=True)
class IdempotencyKey:
    """A client's key for a request, so that repeating the request does not start another job."""

    key: str
    fingerprint: bytes
    """Digest of the request; equal only for equal requests."""

    @classmethod
    def of(cls, key: str, asked: bytes, pictures: Pixels) -> IdempotencyKey:
        """`asked` is all of the request but its images."""
        digest = hashlib.sha256(asked)
        for name, pixels in sorted(pictures.items()):
            digest.update(f"{name} {pixels.shape}".encode())
            digest.update(pixels.tobytes())
        return cls(key, digest.digest())


@dataclass(frozen=True)
class Page:
    records: Sequence[JobRecord]
    has_more: bool


@dataclass(frozen=True)
class StoredFiles:
    """Files of a completed job, as its record names them."""

    job: str
    files: tuple[str, ...]
    completed_at: float
    expires_at: float | None


@dataclass(frozen=True)
class Notice:
    """A webhook to send for a job that has ended."""

    job: JobRecord
    tries: int
    """Number of failed attempts."""


class Ledger(Protocol):
    """Storage interface of Jobs. All methods may block, and raise StorageUnavailable and
    StorageFull; `owner` None means all owners. What can't be read is a failed job (see
    `record_of`). `epoch` counts the fronts that had a job: of those, only the last one changes and
    ends it."""

    add_is_certain: bool
    """Whether nothing is stored when `add` raises StorageUnavailable."""

    def add(self, record: JobRecord, key: IdempotencyKey | None = None) -> JobRecord:
        """Store `record`; no effect if it is stored already. If its owner used the key before,
        return the earlier record instead; raises Conflict if that was for another request."""

    def find(self, key: str, owner: str) -> tuple[JobRecord, bytes] | None:
        """Return the record stored under an idempotency key, and its fingerprint."""

    def get(self, job_id: str, owner: str | None) -> JobRecord:
        """Return the record of a job. Raises NotFound."""

    def page(
        self,
        owner: str | None,
        kind: JobKind | None,
        after: str | None,
        limit: int,
        order: PageOrder,
        search: JobSearch = EVERYTHING,
    ) -> Page:
        """Up to `limit` jobs after job `after`. Raises NotFound if it is unknown."""

    def update(self, job_id: str, epoch: int, **changes: Any) -> None:
        """Change fields of an unfinished job; no effect on one that was deleted or is another
        front's."""

    def end(self, job_id: str, epoch: int, *, notice: bool, **changes: Any) -> bool:
        """End a job, and add a notice if `notice` is set. Returns True also if this front stored
        its end before, and False if the job was deleted, has ended or is another front's."""

    def revise(
        self, job_id: str, owner: str | None, change: Callable[[JobRecord], Mapping[str, Any]]
    ) -> JobRecord:
        """Change fields of an ended job by what `change` returns for its record, at once for all
        fronts; returns the new record. Raises NotFound, and what `change` raises."""

    def starred(self) -> set[str]:
        """All owners' starred outputs, each JOB-INDEX."""

    def stored_files(self) -> Sequence[StoredFiles]:
        """Files of all completed jobs."""

    def delete(self, job_id: str) -> None: ...

    def forget(self, before: float) -> None:
        """Delete jobs that ended before this time, except for those that have files since."""

    def claim_notices(self, limit: int, lease_s: float) -> Sequence[Notice]:
        """Up to `limit` due notices, in order. They aren't due again before `lease_s` have passed,
        for any server."""

    def put_off(self, job_id: str, delay_s: float) -> None:
        """Delay the job's notice after a failed attempt."""

    def all_due(self) -> None:
        """Make notices of an earlier server due, if nothing else does."""

    def remove_notice(self, job_id: str) -> None:
        """Remove the job's notice."""

    def close(self) -> None: ...


def same_request(known: tuple[JobRecord, bytes], key: IdempotencyKey) -> JobRecord:
    """Return the record stored under a key if the request is the same. Raises Conflict."""
    record, fingerprint = known
    if fingerprint != key.fingerprint:
        raise Conflict("the idempotency key was already used for another request")
    return record
