"""`/api/jobs`: prompts in any state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
from fastapi import APIRouter, Request, Response

from multimodal_gen.entrypoints.http.comfyui.errors import json_response
from multimodal_gen.entrypoints.http.comfyui.prompt_jobs import (
    STATUSES,
    JobQuery,
    details_of,
    job_of,
)
from multimodal_gen.entrypoints.http.comfyui.prompts import Prompts
from multimodal_gen.entrypoints.http.comfyui.routes.queries import InvalidQuery, whole_number
from multimodal_gen.entrypoints.http.transport.owners import owner_of


def add_job_routes(routes: APIRouter, prompts: Prompts) -> None:
    """ComfyUI has them with the prefix /api only."""

    @routes.get("/api/jobs", include_in_schema=False)
    async def jobs(request: Request) -> Response:
        """List the client's prompts."""
        try:
            query = _query_of(request.query_params)
        except InvalidQuery as error:
            return json_response({"error": str(error)}, 400)
        owner = owner_of(request)
        queued = [job_of(prompt) for prompt in prompts.queue(owner)]
        return json_response(query.page([*queued, *prompts.ended_jobs(owner).values()]))

    @routes.get("/api/jobs/{job_id}", include_in_schema=False)
    async def job(job_id: str, request: Request) -> Response:
        """Return one prompt, with its results if it has ended."""
        owner = owner_of(request)
        for prompt in prompts.queue(owner):
            if prompt.id == job_id:
                return json_response(job_of(prompt))
        found = prompts.ended_jobs(owner).get(job_id)
        if found is None:
            return json_response({"error": "Job not found"}, 404)
        entry = msgspec.json.decode(prompts.history(owner)[job_id])
        return json_response(details_of(found, entry))


def _query_of(given: Mapping[str, str]) -> JobQuery:
    """Raises InvalidQuery."""
    listed = [text.strip().lower() for text in given.get("status", "").split(",") if text.strip()]
    if unknown := [status for status in listed if status not in STATUSES]:
        what = f"Invalid status value(s): {', '.join(unknown)}"
        raise InvalidQuery(f"{what}. Valid values: {', '.join(STATUSES)}")
    limit, offset = whole_number(given, "limit"), whole_number(given, "offset")
    if limit is not None and limit <= 0:
        raise InvalidQuery("limit must be a positive integer")
    sort_by: Literal["created_at", "execution_duration"]
    match given.get("sort_by", "created_at").lower():
        case "created_at" | "execution_duration" as sort_by:
            pass
        case _:
            raise InvalidQuery("sort_by must be 'created_at' or 'execution_duration'")
    order = given.get("sort_order", "desc").lower()
    if order not in ("asc", "desc"):
        raise InvalidQuery("sort_order must be 'asc' or 'desc'")
    statuses = tuple(listed) or STATUSES
    workflow = given.get("workflow_id")
    return JobQuery(statuses, workflow, sort_by, order == "desc", limit, max(0, offset or 0))
