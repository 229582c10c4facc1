"""`serve` with plain routes to its jobs, whatever protocols there are: run as a program."""

from __future__ import annotations

import json
import sys
from typing import Any

from fastapi import FastAPI, Request

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http import app, server
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.launch import child_environment, supervisor
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.records import JobRecord
from multimodal_gen.serving.service import Service


def create_app(service: Service, jobs: Jobs, args: ServerArgs) -> FastAPI:
    made = app.create_app(service, jobs, args)

    @made.post("/jobs")
    async def submit(request: Request) -> dict[str, Any]:
        params = SamplingParams(**await request.json())
        key = request.headers.get("idempotency-key")
        owner = owner_of(request)
        return shown(await jobs.submit("image", params, owner=owner, idempotency_key=key), jobs)

    @made.get("/jobs")
    async def every(request: Request) -> list[dict[str, Any]]:
        page = await jobs.page(owner_of(request), limit=1000, order="asc")
        return [shown(record, jobs) for record in page.records]

    @made.get("/jobs/{name}")
    async def one(name: str, request: Request) -> dict[str, Any]:
        return shown(await jobs.get(name, owner_of(request)), jobs)

    return made


def shown(record: JobRecord, jobs: Jobs) -> dict[str, Any]:
    return {
        "id": record.id,
        "status": record.status,
        "progress": record.progress,
        "started_at": record.started_at,
        "completed_at": record.completed_at,
        "error": None if record.error is None else record.error.message,
        "files": [str(jobs.results.locate(name, record.owner)) for name in record.files],
    }


if __name__ == "__main__":
    child_environment.PASSED += " RANK_FAULTS"
    supervisor.LONGEST_DELAY_S = 0.5
    server.create_app = create_app
    sys.exit(server.serve(ServerArgs(**json.loads(sys.argv[1]))))
