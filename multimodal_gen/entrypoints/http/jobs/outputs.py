"""`/v1/jobs/…`: stars and deletes single results, packs many, and tells how much space is left."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from multimodal_gen.entrypoints.http.jobs.archive import without_doubles, zipped
from multimodal_gen.entrypoints.http.openai.job_objects import Job, file_name, job_of
from multimodal_gen.entrypoints.http.transport.errors import documented
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.errors import Expired, NotFound
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.records import JobRecord

MAX_PACKED = 5000
"""Results in one zip."""
OutputIndex = Annotated[int, Field(ge=0)]


class OutputChange(BaseModel):
    """Change of one output."""

    starred: bool
    """Starred results go last when space is needed."""


class DeletedOutput(BaseModel):
    """An output that was deleted."""

    id: str
    """The job's."""
    object: Literal["job.output.deleted"]
    index: int
    deleted: bool
    job_deleted: bool
    """It was the job's last one."""


class OutputName(BaseModel):
    """One output of a job, by its place in `outputs`."""

    job: str
    index: OutputIndex = 0


class ZipRequest(BaseModel):
    """Results that are to be in a zip."""

    outputs: Annotated[list[OutputName], Field(min_length=1, max_length=MAX_PACKED)]


class JobStorage(BaseModel):
    """Space for the results of the client's API key."""

    object: Literal["job.storage"]
    used_bytes: int
    quota_bytes: int
    nearly_full: bool
    """Nine tenths of it or more are used."""
    expires_after_s: float | None
    """Age at which results are deleted; None if they are kept until space is needed."""
    next: list[OutputName]
    """Results that go next, in order, once it is nearly full: those that a tenth of the quota in
    new results would take the place of."""


def add_output_routes(routes: APIRouter, jobs: Jobs) -> None:
    """Add the routes to those of jobs."""
    path = "/v1/jobs/{job_id}/outputs/{index}"

    @routes.get("/v1/jobs/storage", response_model=JobStorage, responses=documented(401, 503))
    async def read_storage(request: Request) -> Response:
        """Get the space that results take, and which go next once it is nearly full."""
        use = await asyncio.to_thread(jobs.shelf.use, owner_of(request))
        named = [name.rpartition("-") for name in use.next]
        return json_reply(
            {
                "object": "job.storage",
                "used_bytes": use.used,
                "quota_bytes": use.quota,
                "nearly_full": use.nearly_full,
                "expires_after_s": jobs.results.ttl_s,
                "next": [{"job": job, "index": int(index)} for job, _, index in named],
            }
        )

    @routes.post(
        "/v1/jobs/zip",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"application/zip": {}}},
            **documented(400, 401, 404, 410, 503),
        },
    )
    async def pack(body: ZipRequest, request: Request) -> Response:
        """Download results as one zip, under the names that they have alone. Fails before it
        begins if one of them is unknown or gone."""
        files = await asyncio.to_thread(_find, jobs, body.outputs, owner_of(request))
        headers = {"content-disposition": 'attachment; filename="results.zip"'}
        return StreamingResponse(
            zipped(_opened(jobs, files)), headers=headers, media_type="application/zip"
        )

    @routes.post(path, response_model=Job, responses=documented(400, 401, 404, 503, 507))
    async def change_output(
        job_id: str, index: int, body: OutputChange, request: Request
    ) -> Response:
        """Star a result, or take its star away; returns the job."""
        owner = owner_of(request)
        record = await asyncio.to_thread(
            jobs.shelf.star, job_id, index, owner, starred=body.starred
        )
        return json_reply(await asyncio.to_thread(job_of, request, record, None, jobs.results))

    @routes.delete(
        path, response_model=DeletedOutput, responses=documented(400, 401, 404, 503, 507)
    )
    async def delete_output(job_id: str, index: int, request: Request) -> dict[str, Any]:
        """Delete one result with its files; the job with its last one."""
        record = await asyncio.to_thread(jobs.shelf.remove_output, job_id, index, owner_of(request))
        deleted = {"id": job_id, "object": "job.output.deleted", "index": index, "deleted": True}
        return {**deleted, "job_deleted": not record.files}


def json_reply(content: dict[str, Any]) -> Response:
    """Encode a reply's content."""
    return Response(msgspec.json.encode(content), media_type="application/json")


_Packed = tuple[str, str, str]
"""Name in the zip, name of the stored file, and its owner."""


def _find(jobs: Jobs, outputs: list[OutputName], owner: Owner) -> list[_Packed]:
    """Raises NotFound and Expired."""
    known: dict[str, JobRecord] = {}
    found = []
    for output in {(each.job, each.index): each for each in outputs}.values():
        if output.job not in known:
            known[output.job] = jobs.shelf.get(output.job, owner)
        record = known[output.job]
        if (name := file_name(record, output.index)) is None:
            raise NotFound(f"job {record.id} has no output {output.index}")
        stored = record.files_of(output.index)[0]
        if not jobs.results.offers(stored, record.owner, record.expires_at):
            raise Expired(f"output {output.index} of job {record.id} is no longer kept")
        found.append((name, stored, record.owner))
    names = without_doubles(name for name, _, _ in found)
    return [(name, stored, of) for name, (_, stored, of) in zip(names, found, strict=True)]


def _opened(jobs: Jobs, files: list[_Packed]) -> Iterator[tuple[str, IO[bytes]]]:
    """Open each file when it is its turn; what is gone by then is left out."""
    for name, stored, owner in files:
        try:
            place = jobs.results.locate(stored, owner)
            data = place.open("rb") if isinstance(place, Path) else None
        except (Expired, FileNotFoundError):
            continue
        yield name, data or io.BytesIO(jobs.results.read(stored, owner))
