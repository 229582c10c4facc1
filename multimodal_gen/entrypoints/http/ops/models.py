"""`/v1/models`: the models that are served, their state, and how an operator changes it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Response

from multimodal_gen.entrypoints.http.transport.errors import documented
from multimodal_gen.entrypoints.http.transport.keys import admin_only
from multimodal_gen.serving.fleet.served_model import ServedModel
from multimodal_gen.serving.service import Service

_CHANGE: dict[int | str, dict[str, Any]] = {
    202: {"description": "The change has begun: the model with its state."},
    **documented(401, 403, 404, 503),
}


def model_routes(service: Service) -> APIRouter:
    """Create the routes of `/v1/models`. Those that change something need the admin key."""
    routes = APIRouter()
    created = int(time.time())
    admin = [Depends(admin_only)]

    @routes.get("/v1/models", responses=documented(401, 500, 503))
    async def list_models() -> dict[str, Any]:
        """List the served models; the first one is the default."""
        service.info_of(service.fleet.default)
        data = [_described(model, created) for model in service.fleet.models]
        return {"object": "list", "data": data}

    @routes.post("/v1/models/{name:path}/load", dependencies=admin, responses=_CHANGE)
    async def load(name: str) -> Response:
        """Load a model, in place of the least recently used ones if need be. Returns 202 while it
        is loading, and 200 once it is loaded."""
        model = service.fleet.named(name)
        service.loader.load(model)
        return _reply(model, done=model.status == "ready")

    @routes.post("/v1/models/{name:path}/unload", dependencies=admin, responses=_CHANGE)
    async def unload(name: str) -> Response:
        """Unload a model once it has no requests; the next request loads it again. Returns 202
        until then, and 200 afterwards."""
        model = service.fleet.named(name)
        if model.status != "unloaded":
            service.loader.unload(model)
        return _reply(model, done=model.status == "unloaded")

    @routes.post("/v1/models/{name:path}/reload", dependencies=admin, responses=_CHANGE)
    async def reload(name: str) -> Response:
        """Restart a model's engines, one after the other, each once it has no requests."""
        model = service.fleet.named(name)
        service.loader.reload([model])
        return _reply(model, done=False)

    # Last: a name can be any path.
    @routes.get("/v1/models/{name:path}", responses=documented(401, 404, 500, 503))
    async def retrieve_model(name: str) -> dict[str, Any]:
        """Return a served model by name."""
        model = service.fleet.named(name)
        if not model.on_demand:
            service.info_of(model)
        return _described(model, created)

    def _reply(model: ServedModel, *, done: bool) -> Response:
        content = msgspec.json.encode(_described(model, created))
        return Response(content, 200 if done else 202, media_type="application/json")

    return routes


def _described(model: ServedModel, created: int) -> dict[str, Any]:
    """A model as OpenAI's clients expect it, with our own fields; what is not known before it was
    loaded is null."""
    info = model.info
    return {
        "id": model.name,
        "object": "model",
        "created": created,
        "owned_by": "multimodal_gen",
        "family": None if info is None else info.family,
        "tasks": None if info is None else info.tasks,
        "sound": None if info is None else info.sound,
        "residency": None if info is None else info.residency,
        "sharing": None if info is None else info.sharing,
        "status": model.status,
        "engines": [engine.status for engine in model.engines],
        "loading": None if model.loading is None else asdict(model.loading),
        "reason": None if model.failure is None else model.failure.message,
    }
