"""A job of any kind, as returned by the job routes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec
from fastapi import Request
from pydantic import BaseModel

from multimodal_gen.configs.sampling_params import PARAMETERS
from multimodal_gen.entrypoints.http.jobs.files import absolute_url
from multimodal_gen.entrypoints.http.transport.errors import ErrorInfo, envelope
from multimodal_gen.entrypoints.http.transport.warnings import WarningInfo
from multimodal_gen.errors import NotFound
from multimodal_gen.messages.request_warning import as_plain
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.records import EVERYTHING, JobKind, JobRecord, JobSearch, PageOrder
from multimodal_gen.serving.storage.ledger import Page
from multimodal_gen.serving.storage.results import ResultStore
from multimodal_gen.serving.task import Status, Task

_WORDS = re.compile(r"[^\W_]+")
_PRIVATE = {name for name, each in PARAMETERS.items() if each.spec.local}


class JobProgress(BaseModel):
    """Combined progress of all outputs of a job."""

    step: int
    total: int
    queue_position: int
    """Number of requests ahead of its first one; 0 once one runs."""
    loading: bool
    """It waits for its model to be loaded."""
    eta_s: float | None
    phase: str
    """What is being done: enhance, encode, denoise or decode; empty while it waits."""
    batch_size: int
    """Number of requests that share its current step, of others too; 0 while it waits, also after
    it was interrupted for requests that go first."""


class AudioInfo(BaseModel):
    """Sound of a video."""

    rate: int
    """Samples per second."""
    channels: int
    samples: int


class JobOutput(BaseModel):
    """One image or video."""

    seed: int
    revised_prompt: str | None
    """The prompt that was used, if it was enhanced."""
    evaluations: dict[str, int] | None
    """Once it is made: numbers of evaluations that were computed, and that were extrapolated."""
    url: str | None
    """None until it is ready, and again after it has expired."""
    thumbnail_url: str | None
    """For a video: one frame; for a large image: a small one."""
    file_name: str | None
    """A name to save it under: words of the prompt, and the seed."""
    starred: bool
    deleted: bool
    """Deleted alone; the others of the job keep their places in this list."""


class Job(BaseModel):
    """An accepted and stored request for images or a video. `expires_at` is the time at which its
    results are deleted by age, or were deleted; None if they are kept until that is asked for or
    space is needed."""

    id: str
    object: Literal["job"]
    kind: JobKind
    status: Status
    model: str
    created_at: int
    started_at: int | None
    completed_at: int | None
    expires_at: int | None
    seconds: float | None
    """From the start of its work to its end, once it has ended."""
    progress: JobProgress | None
    """None before this server has queued it, and after it has ended."""
    parameters: dict[str, Any]
    """All defaults filled in, with the seed of the first output."""
    pictures: list[str]
    """Its input images and video: image, image_2, …, last_image, mask, video."""
    outputs: list[JobOutput]
    audio: AudioInfo | None
    """Sound of each output, once it is made and if it has some."""
    error: ErrorInfo | None
    warnings: list[WarningInfo]
    prompt_notes: list[str]
    """How its prompts were read, if it has a `prompt_syntax`."""
    usage: dict[str, Any] | None
    """What it cost, once it is made: as in the reply of an image route."""


class JobPage(BaseModel):
    object: Literal["list"]
    data: list[Job]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedJob(BaseModel):
    id: str
    object: Literal["job.deleted"]
    deleted: bool


def job_of(
    request: Request, record: JobRecord, task: Task | None, results: ResultStore
) -> dict[str, Any]:
    """Build the Job of a record; `task` runs it, if it has not ended. Accesses the disk."""
    first = record.request.requests[0]
    params = msgspec.to_builtins(first.params)
    return {
        "id": record.id,
        "object": "job",
        "kind": record.kind,
        "status": record.status,
        "model": record.model,
        **times_of(record),
        "seconds": seconds_of(record),
        "progress": None if task is None or record.done else progress_of(task),
        "parameters": {
            name: value
            for name, value in params.items()
            if value is not None and name not in (*_PRIVATE, "num_outputs_per_prompt")
        },
        "pictures": list(first.pictures),
        "outputs": list(_outputs(request, record, results)),
        "audio": record.meta.get("audio"),
        "error": None if record.error is None else envelope(record.error.exception()),
        "warnings": as_plain(record.warnings),
        "prompt_notes": record.meta.get("prompt_notes", []),
        "usage": record.meta.get("usage"),
    }


async def page_of(
    jobs: Jobs,
    owner: Owner,
    kind: JobKind | None,
    after: str | None,
    limit: int,
    order: PageOrder,
    search: JobSearch = EVERYTHING,
) -> Page:
    """A page of an owner's jobs; empty after a job that no longer exists, and for a limit of 0."""
    try:
        if limit == 0:
            return Page([], has_more=False)
        return await jobs.page(owner, kind, after, limit, order, search)
    except NotFound:
        return Page([], has_more=False)


def times_of(record: JobRecord) -> dict[str, int | None]:
    """Timestamps in whole seconds since 1970."""
    times = {
        "created_at": record.created_at,
        "started_at": record.started_at,
        "completed_at": record.completed_at,
        "expires_at": record.expires_at,
    }
    return {name: None if time is None else int(time) for name, time in times.items()}


def seconds_of(record: JobRecord) -> float | None:
    """Seconds that a job's work took; None before its end, or if it never began."""
    if record.started_at is None or record.completed_at is None:
        return None
    return max(0.0, round(record.completed_at - record.started_at, 3))


def progress_of(task: Task) -> dict[str, Any]:
    progress = task.progress
    return {
        "step": progress.step,
        "total": progress.total,
        "queue_position": progress.queue_position,
        "loading": progress.loading,
        "eta_s": progress.eta_s,
        "phase": progress.phase,
        "batch_size": progress.batch_size,
    }


def _outputs(request: Request, record: JobRecord, results: ResultStore) -> Iterator[dict[str, Any]]:
    for index, req in enumerate(record.request.requests):
        mine = record.files_of(index)
        thumbnails = [name for name in mine[1:] if name.endswith(".webp")]
        yield {
            "seed": req.params.seed,
            "revised_prompt": record.revised_prompt(index),
            "evaluations": record.evaluations(index),
            "url": _link(request, record, results, mine),
            "thumbnail_url": _link(request, record, results, thumbnails),
            "file_name": file_name(record, index),
            "starred": index in record.starred,
            "deleted": not record.has(index),
        }


def file_name(record: JobRecord, index: int) -> str | None:
    """Return the name under which an output is saved, if it is made."""
    if not (mine := record.files_of(index)):
        return None
    params = record.request.requests[index].params
    words = "-".join(_WORDS.findall(params.prompt.lower()))[:60].strip("-") or record.kind
    return f"{words}-{params.seed}.{mine[0].rpartition('.')[2]}"


def _link(
    request: Request, record: JobRecord, results: ResultStore, names: Sequence[str]
) -> str | None:
    if not names or not results.offers(names[0], record.owner, record.expires_at):
        return None
    return absolute_url(request, results.link(names[0], record.owner))
