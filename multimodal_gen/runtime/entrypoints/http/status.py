"""What is served, and whether it is up."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter

from multimodal_gen import __version__
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.runtime.entrypoints.http.served_engine import ServedEngine


def status_routes(engine: ServedEngine) -> APIRouter:
    """`/v1/models` and the probes."""
    routes = APIRouter()
    created = int(time.time())

    @routes.get("/liveness")
    async def liveness() -> dict[str, str]:
        """200 while the server's process answers."""
        return {"status": "alive"}

    @routes.get("/health")
    async def health() -> dict[str, str]:
        """200 when requests are served; 503 while the model loads, and when a rank is dead."""
        return {"status": "ready", "model": engine.ready()[1].name}

    @routes.get("/version")
    async def version() -> dict[str, str]:
        return {"version": __version__}

    @routes.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_described(engine.ready()[1], created)]}

    @routes.get("/v1/models/{name:path}")
    async def retrieve_model(name: str) -> dict[str, Any]:
        return _described(engine.model(name), created)

    return routes


def _described(model: ModelInfo, created: int) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": created,
        "owned_by": "multimodal_gen",
        "family": model.family,
        "tasks": model.tasks,
    }
