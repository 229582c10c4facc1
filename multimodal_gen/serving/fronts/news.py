"""News that fronts tell one another through the database: short, and possibly lost.

Anyone who can connect to the database can send these, so they are only hints: what they say is
looked up in the ledger before it has an effect, except for progress, which is only shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec

News = str
"""A message as it is sent."""
MAX_BYTES = 7500
"""PostgreSQL refuses payloads of 8000 bytes."""

_JobId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{0,64}$")]
_Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
_Phase = Annotated[str, msgspec.Meta(max_length=16)]
OutputProgress = tuple[_Count, _Count, _Count, _Seconds | None, _Phase, _Count]
"""Step, total, queue position, seconds left, phase and batch size of an output."""


class JobAdded(msgspec.Struct, tag="added", frozen=True):
    """A job waits for a front; without an id, some do."""

    job: _JobId


class JobEnded(msgspec.Struct, tag="ended", frozen=True):
    """A job has ended or was deleted."""

    job: _JobId


class JobChanged(msgspec.Struct, tag="changed", frozen=True):
    """An ended job was changed or deleted."""

    job: _JobId
    owner: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
    """A digest, see `digest_of`."""


class CancelAsked(msgspec.Struct, tag="cancel", frozen=True):
    """A client wants a job to be cancelled."""

    job: _JobId


class JobsMoved(msgspec.Struct, tag="moved", frozen=True):
    """Progress of jobs of one front."""

    front: Annotated[str, msgspec.Meta(max_length=32)]
    jobs: dict[_JobId, Annotated[list[OutputProgress], msgspec.Meta(max_length=64)]]


AnyNews = JobAdded | JobEnded | JobChanged | CancelAsked | JobsMoved
_DECODER = msgspec.json.Decoder(AnyNews)


def added(job_id: str) -> News:
    return _encoded(JobAdded(job_id))


def ended(job_id: str) -> News:
    return _encoded(JobEnded(job_id))


def changed(job_id: str, owner: str) -> News:
    """`owner` is a digest."""
    return _encoded(JobChanged(job_id, owner))


def cancel_asked(job_id: str) -> News:
    return _encoded(CancelAsked(job_id))


def moved(front: str, jobs: dict[str, list[OutputProgress]]) -> Iterator[News]:
    """Messages of at most `MAX_BYTES`; a job of very many outputs has no progress elsewhere."""
    batch: dict[str, list[OutputProgress]] = {}
    for job_id, outputs in jobs.items():
        if len(_encoded(JobsMoved(front, {**batch, job_id: outputs}))) > MAX_BYTES:
            if batch:
                yield _encoded(JobsMoved(front, batch))
            batch = {}
        if len(_encoded(JobsMoved(front, {job_id: outputs}))) <= MAX_BYTES:
            batch[job_id] = outputs
    if batch:
        yield _encoded(JobsMoved(front, batch))


def parse(news: News) -> AnyNews | None:
    """The message, or None for one that is not of this version's."""
    try:
        known: AnyNews = _DECODER.decode(news)
        return known
    except msgspec.MsgspecError:
        return None


def _encoded(news: AnyNews) -> News:
    return msgspec.json.encode(news).decode("ascii")
