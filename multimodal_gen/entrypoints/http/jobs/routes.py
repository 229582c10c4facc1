"""`/v1/jobs`: lists, follows and deletes image and video jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from multimodal_gen.entrypoints.http.jobs.feed import Changes, JobFeed, StartedTasks
from multimodal_gen.entrypoints.http.jobs.outputs import add_output_routes, json_reply
from multimodal_gen.entrypoints.http.openai.job_objects import (
    DeletedJob,
    Job,
    JobPage,
    job_of,
    page_of,
)
from multimodal_gen.entrypoints.http.openai.streaming import EventStream
from multimodal_gen.entrypoints.http.transport.errors import documented
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.entrypoints.http.transport.parsed_route import ParsedRoute
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.records import JobKind, JobRecord, JobSearch, PageOrder
from multimodal_gen.serving.service import Service

MAX_PAGE = 100
MAX_SEARCH = 1000
_Time = Annotated[float, Query(allow_inf_nan=False)]


def job_routes(service: Service, jobs: Jobs) -> APIRouter:
    """Routes for jobs of /v1/videos, and of /v1/images in the background."""
    routes = APIRouter(route_class=ParsedRoute)
    started_tasks = StartedTasks()
    service.observers.append(started_tasks)
    jobs.on_started(started_tasks.started)
    changes = Changes()
    jobs.on_changed(changes.hear)

    @routes.get("/v1/jobs", response_model=JobPage, responses=documented(400, 401, 404, 503))
    async def list_jobs(
        request: Request,
        kind: JobKind | None = None,
        after: str | None = None,
        limit: Annotated[int, Query(ge=0, le=MAX_PAGE)] = 20,
        order: PageOrder = "desc",
        search: Annotated[str, Query(max_length=MAX_SEARCH, pattern=r"^[^\x00]*$")] = "",
        model: str | None = None,
        starred: bool = False,
        created_after: _Time | None = None,
        created_before: _Time | None = None,
    ) -> Response:
        """List jobs by time of acceptance; `after` is the last id of the previous page. `search`:
        words that are all in the prompt, in any case; `starred=true`: only jobs with a starred
        output; `created_after` (inclusive) and `created_before` (exclusive) are seconds since
        1970."""
        wanted = JobSearch(
            words=search,
            model=model,
            starred=starred,
            since=created_after,
            before=created_before,
        )
        page = await page_of(jobs, owner_of(request), kind, after, limit, order, wanted)
        data = await asyncio.to_thread(_all, request, page.records, jobs)
        first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        ends = {"first_id": first, "last_id": last, "has_more": page.has_more}
        return json_reply({"object": "list", "data": data, **ends})

    add_output_routes(routes, jobs)

    # Endless, so not in the schema, whose users try every route.
    @routes.get("/v1/jobs/events", include_in_schema=False)
    async def follow_jobs(request: Request) -> Response:
        """Stream server-sent events about all of the client's jobs, until it disconnects."""
        return EventStream(JobFeed(request, service, jobs, started_tasks, changes))

    @routes.get("/v1/jobs/{job_id}", response_model=Job, responses=documented(401, 404, 503))
    async def retrieve_job(job_id: str, request: Request) -> Response:
        """Get a job's parameters, progress and result links."""
        record = await jobs.get(job_id, owner_of(request))
        (job,) = await asyncio.to_thread(_all, request, [record], jobs)
        return json_reply(job)

    @routes.delete(
        "/v1/jobs/{job_id}",
        response_model=DeletedJob,
        responses=documented(401, 404, 503, 507),
    )
    async def delete_job(job_id: str, request: Request) -> dict[str, Any]:
        """Cancel a job, and delete it with its files."""
        await jobs.delete(job_id, owner_of(request))
        return {"id": job_id, "object": "job.deleted", "deleted": True}

    return routes


def _all(request: Request, records: Sequence[JobRecord], jobs: Jobs) -> list[dict[str, Any]]:
    return [job_of(request, record, jobs.task(record.id), jobs.results) for record in records]
