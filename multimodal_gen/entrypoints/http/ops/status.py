"""Health checks and server info."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import msgspec
from fastapi import APIRouter, Response

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.transport.errors import documented, response_of
from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.service import Service
from multimodal_gen.version import __version__


def status_routes(service: Service, jobs: Jobs, args: ServerArgs) -> APIRouter:
    """Create the health checks."""
    routes = APIRouter()
    started = time.monotonic()

    @routes.get("/liveness")
    async def liveness() -> dict[str, str]:
        """Return 200 while the server process responds."""
        return {"status": "alive"}

    @routes.get("/health", response_class=Response, responses=documented(503))
    async def health() -> Response:
        """Return 200 if an engine of the default model is ready; 503 while all of them are loading,
        restarting or stopping.

        The body has the state, that of each engine, the number of ranks, and the number of running
        and queued requests; with --ledger, whether its database can be reached. Without it,
        requests that are no jobs are served.
        """
        state: dict[str, Any] = asdict(service.health())
        state["status"] = state.pop("phase")
        if args.ledger is not None:
            state["ledger"] = "unreachable" if jobs.trouble else "reachable"
        reply = Response(media_type="application/json")
        try:
            model = service.model
            state |= {"model": model.name, "residency": model.residency}
            state["sharing"] = model.sharing
            if state["status"] != "ready":
                raise service.not_ready()
        except MultimodalGenError as error:
            reply = response_of(error)
            state |= msgspec.json.decode(reply.body)
        reply.body = msgspec.json.encode(state)
        reply.headers["content-length"] = str(len(reply.body))
        return reply

    @routes.get("/server_info", responses=documented(401))
    async def server_info() -> dict[str, Any]:
        """Return the server's arguments without secrets, and the server's state."""
        try:
            model = service.model.name
        except MultimodalGenError:
            model = None
        return {
            "version": __version__,
            "uptime_s": round(time.monotonic() - started, 3),
            "model": model,
            "health": asdict(service.health()),
            "server_args": asdict(args.without_secrets),
        }

    @routes.get("/version", responses=documented(401))
    async def version() -> dict[str, str]:
        """Return the server's version."""
        return {"version": __version__}

    return routes
