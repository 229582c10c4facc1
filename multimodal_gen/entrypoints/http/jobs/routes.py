"""`/v1/jobs`: pictures and videos that were accepted as jobs, and what happens to them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response

from multimodal_gen.entrypoints.http.jobs.feed import JobFeed, StartedTasks
from multimodal_gen.entrypoints.http.openai.job_objects import DeletedJob, Job, JobPage, job_of
from multimodal_gen.entrypoints.http.openai.streaming import EventStream
from multimodal_gen.entrypoints.http.transport.errors import documented
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.records import JobKind, JobRecord, PageOrder
from multimodal_gen.serving.service import Service

MAX_PAGE = 100


def job_routes(service: Service, jobs: Jobs) -> APIRouter:
    """What was asked for by /v1/videos, and in the background of /v1/images."""
    routes = APIRouter()
    started_tasks = StartedTasks()
    service.observers.append(started_tasks)

    @routes.get("/v1/jobs", response_model=JobPage, responses=documented(400, 401, 404))
    async def list_jobs(
        request: Request,
        kind: JobKind | None = None,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
        order: PageOrder = "desc",
    ) -> Response:
        """Jobs by when they were accepted; `after` is the last id of the page before."""
        page = await jobs.page(owner_of(request), kind, after, limit, order)
        data = await asyncio.to_thread(_all, request, page.records, jobs)
        first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        ends = {"first_id": first, "last_id": last, "has_more": page.has_more}
        return _json({"object": "list", "data": data, **ends})

    # Without an end, so not in the schema, whose readers try everything.
    @routes.get("/v1/jobs/events", include_in_schema=False)
    async def follow_jobs(request: Request) -> Response:
        """Server-sent events about all jobs of who asks, until they hang up."""
        return EventStream(JobFeed(request, service, jobs, started_tasks))

    @routes.get("/v1/jobs/{job_id}", response_model=Job, responses=documented(401, 404))
    async def retrieve_job(job_id: str, request: Request) -> Response:
        """What was asked, how far it is, and links to what was made."""
        record = await jobs.get(job_id, owner_of(request))
        (job,) = await asyncio.to_thread(_all, request, [record], jobs)
        return _json(job)

    @routes.delete("/v1/jobs/{job_id}", response_model=DeletedJob, responses=documented(401, 404))
    async def delete_job(job_id: str, request: Request) -> dict[str, Any]:
        """End the work on a job, and forget it and its files."""
        await jobs.delete(job_id, owner_of(request))
        return {"id": job_id, "object": "job.deleted", "deleted": True}

    return routes


def _all(request: Request, records: Sequence[JobRecord], jobs: Jobs) -> list[dict[str, Any]]:
    return [job_of(request, record, jobs.task(record.id), jobs.results) for record in records]


def _json(content: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
