"""Image jobs in the background: status and file links."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from multimodal_gen.entrypoints.http.jobs.files import absolute_url
from multimodal_gen.entrypoints.http.transport.errors import documented
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.entrypoints.http.transport.warnings import WarningInfo
from multimodal_gen.errors import NotFound
from multimodal_gen.messages.request_warning import as_plain
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.records import JobRecord
from multimodal_gen.serving.storage.results import ResultStore

POLL_AFTER_MS = 1000


class ImageJob(BaseModel):
    """An accepted request for images."""

    id: str
    object: str
    status: str
    progress: int
    created_at: int
    completed_at: int | None
    expires_at: int | None
    model: str
    data: list[dict[str, Any]]
    error: dict[str, Any] | None
    warnings: list[WarningInfo]
    usage: dict[str, Any] | None
    """What it cost, once it has completed."""


class DeletedImageJob(BaseModel):
    id: str
    object: str
    deleted: bool


def image_job_routes(jobs: Jobs) -> APIRouter:
    """Routes of `/v1/images/jobs`."""
    routes = APIRouter()
    path = "/v1/images/jobs/{job_id}"

    @routes.get(path, response_model=ImageJob, responses=documented(401, 404, 503))
    async def retrieve_image_job(job_id: str, request: Request) -> Response:
        """Get an image job's progress and, when it has completed, links to its images."""
        return job_reply(request, await _known(jobs, job_id, owner_of(request)), jobs.results)

    @routes.delete(path, response_model=DeletedImageJob, responses=documented(401, 404, 503, 507))
    async def delete_image_job(job_id: str, request: Request) -> dict[str, Any]:
        """Cancel an image job, and delete it with its images."""
        owner = owner_of(request)
        await _known(jobs, job_id, owner)
        await jobs.delete(job_id, owner)
        return {"id": job_id, "object": "image.job.deleted", "deleted": True}

    return routes


def job_reply(
    request: Request, record: JobRecord, results: ResultStore, status: int = 200
) -> Response:
    """Describe a job to its client."""
    content = {
        "id": record.id,
        "object": "image.job",
        "status": record.status,
        "progress": record.progress,
        "created_at": int(record.created_at),
        "completed_at": None if record.completed_at is None else int(record.completed_at),
        "expires_at": None if record.expires_at is None else int(record.expires_at),
        "model": record.model,
        "data": [*_images(request, record, results)],
        "error": record.error,
        "warnings": as_plain(record.warnings),
        "usage": record.meta.get("usage"),
    }
    headers = {} if record.done else {"openai-poll-after-ms": str(POLL_AFTER_MS)}
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


def _images(request: Request, record: JobRecord, results: ResultStore) -> Iterator[dict[str, Any]]:
    for index, req in enumerate(record.request.requests):
        if not (names := record.files_of(index)):
            continue
        revised, evaluations = record.revised_prompt(index), record.evaluations(index)
        yield {
            "url": absolute_url(request, results.link(names[0], record.owner)),
            "seed": req.params.seed,
            **({} if revised is None else {"revised_prompt": revised}),
            **({} if evaluations is None else {"evaluations": evaluations}),
        }


async def _known(jobs: Jobs, job_id: str, owner: Owner) -> JobRecord:
    record = await jobs.get(job_id, owner)
    if record.kind != "image":
        raise NotFound(f"no image job {job_id[:120]!r}")
    return record
