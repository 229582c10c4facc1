"""`/v1/videos`: video jobs in OpenAI's format."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse

from multimodal_gen.entrypoints.http.jobs.files import file_response
from multimodal_gen.entrypoints.http.openai.job_objects import page_of
from multimodal_gen.entrypoints.http.openai.video_maker import VideoMaker
from multimodal_gen.entrypoints.http.openai.video_objects import (
    DeletedVideo,
    Video,
    VideoPage,
    poll_after_ms,
    video_of,
)
from multimodal_gen.entrypoints.http.openai.video_schema import RemixRequest, VideosRequest
from multimodal_gen.entrypoints.http.transport import forms
from multimodal_gen.entrypoints.http.transport.errors import documented
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.errors import NotFound
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.records import JobRecord, PageOrder

MAX_PAGE = 100
Variant = Literal["video", "thumbnail", "spritesheet"]
_SUFFIXES: dict[Variant, str] = {"video": ".mp4", "thumbnail": ".webp", "spritesheet": ".jpg"}
_FORM_FIRST = ("multipart/form-data", "application/json")
_ASKED = documented(400, 401, 409, 413, 429, 500, 503, 507)
_FILES: dict[str, Any] = {
    "content": {kind: {} for kind in ("video/mp4", "image/webp", "image/jpeg")}
}


def video_routes(maker: VideoMaker) -> APIRouter:
    """Create the routes for video jobs."""
    routes = APIRouter()
    jobs = maker.jobs
    path = "/v1/videos/{video_id}"

    @routes.post(
        "/v1/videos",
        response_model=Video,
        responses=_ASKED,
        openapi_extra=forms.body_schema(VideosRequest, *_FORM_FIRST),
    )
    async def create(request: Request) -> Response:
        """Accept a video job; a repeated `idempotency-key` returns the earlier job."""
        body = await forms.parse_body(request, VideosRequest)
        return _reply(await maker.submit(request, body), jobs)

    @routes.post(
        "/v1/videos/sync",
        response_class=Response,
        responses={200: {"content": {"video/mp4": {}}}, **_ASKED, **documented(408, 499)},
        openapi_extra=forms.body_schema(VideosRequest, *_FORM_FIRST),
    )
    async def create_now(request: Request) -> Response:
        """Return the video itself, when it is done. Disconnecting cancels the request."""
        return await maker.make(request, await forms.parse_body(request, VideosRequest))

    @routes.get("/v1/videos", response_model=VideoPage, responses=documented(400, 401, 404, 503))
    async def list_videos(
        request: Request,
        after: str | None = None,
        limit: Annotated[int, Query(ge=0, le=MAX_PAGE)] = 20,
        order: PageOrder = "desc",
    ) -> Response:
        """List videos by time of acceptance; `after` is the last id of the previous page. After an
        id that no longer exists, the page is empty."""
        page = await page_of(jobs, owner_of(request), "video", after, limit, order)
        videos = [video_of(record, jobs.task(record.id)) for record in page.records]
        first, last = (videos[0]["id"], videos[-1]["id"]) if videos else (None, None)
        ends = {"first_id": first, "last_id": last, "has_more": page.has_more}
        return _json({"object": "list", "data": videos, **ends})

    @routes.get(path, response_model=Video, responses=documented(401, 404, 503))
    async def retrieve(video_id: str, request: Request) -> Response:
        """Get a video's progress; `openai-poll-after-ms` is the suggested polling interval."""
        return _reply(await _known(jobs, video_id, owner_of(request)), jobs)

    @routes.delete(path, response_model=DeletedVideo, responses=documented(401, 404, 503, 507))
    async def delete(video_id: str, request: Request) -> dict[str, Any]:
        """Cancel a video job, and delete it with its files."""
        owner = owner_of(request)
        await _known(jobs, video_id, owner)
        await jobs.delete(video_id, owner)
        return {"id": video_id, "object": "video.deleted", "deleted": True}

    @routes.get(
        f"{path}/content",
        response_class=FileResponse,
        responses={200: _FILES, **documented(400, 401, 404, 410, 503)},
    )
    async def download(video_id: str, request: Request, variant: Variant = "video") -> Response:
        """Download the video as MP4, a frame as WebP, or a sheet of frames as JPEG."""
        record = _finished(await _known(jobs, video_id, owner_of(request)))
        suffix = _SUFFIXES[variant]
        name = next(name for name in record.files if name.endswith(suffix))
        location = await asyncio.to_thread(jobs.results.locate, name, record.owner)
        return file_response(location, name, filename=f"{record.id}{suffix}")

    @routes.post(
        f"{path}/remix",
        response_model=Video,
        responses={**_ASKED, **documented(404, 410)},
        openapi_extra=forms.body_schema(RemixRequest, *reversed(_FORM_FIRST)),
    )
    async def remix(video_id: str, request: Request) -> Response:
        """Repeat a video, with the same seed and image, for another prompt."""
        body = await forms.parse_body(request, RemixRequest)
        source = _finished(await _known(jobs, video_id, owner_of(request)))
        return _reply(await maker.submit(request, body, source), jobs)

    return routes


async def _known(jobs: Jobs, video_id: str, owner: Owner) -> JobRecord:
    """Get a video job. Raises NotFound, also for another owner's."""
    record = await jobs.get(video_id, owner)
    if record.kind != "video":
        raise NotFound(f"no video {video_id[:100]!r}")
    return record


def _finished(record: JobRecord) -> JobRecord:
    if record.error is not None:
        raise NotFound(f"there is no video; the job failed: {record.error.message}")
    if not record.done:
        raise NotFound(f"the video is not ready: {record.status}, {record.progress} %")
    return record


def _reply(record: JobRecord, jobs: Jobs) -> Response:
    task = jobs.task(record.id)
    headers = {}
    if not record.done:
        eta_s = None if task is None else task.progress.eta_s
        headers["openai-poll-after-ms"] = str(poll_after_ms(eta_s))
    return _json(video_of(record, task), headers)


def _json(content: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), 200, headers, media_type="application/json")
