"""`GET /metrics`, and the observer that feeds metrics and traces."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from multimodal_gen.client.request_handle import Output
from multimodal_gen.entrypoints.http.transport.errors import documented
from multimodal_gen.entrypoints.http.transport.key_ring import KeyRing
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.observability.metrics import EngineState, FleetState, Metrics, ModelState
from multimodal_gen.observability.tracing import Tracing
from multimodal_gen.serving.fleet.engine import Engine
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.service import Service
from multimodal_gen.serving.task import Task
from multimodal_gen.serving.usage import RequestUsage

if TYPE_CHECKING:
    from opentelemetry.context import Context


def metrics_routes(metrics: Metrics, ring: KeyRing) -> APIRouter:
    """The route that Prometheus scrapes. Where there are several keys, only the administrator's
    shows the totals of each."""
    routes = APIRouter()

    @routes.get("/metrics", response_class=Response, responses=documented(401))
    async def exposition(request: Request) -> Response:
        """Return metrics in Prometheus' text format, or OpenMetrics if the client accepts it. The
        totals of each key are for the administrator's key, unless there is only one."""
        sees_keys = len(ring.shares) <= 1 or owner_of(request).admin
        accept = request.headers.get("accept", "")
        content, kind = metrics.exposition(accept, with_keys=sees_keys)
        return Response(content, headers={"content-type": kind})

    return routes


def fleet_state(service: Service, jobs: Jobs) -> Callable[[], FleetState]:
    """Return a function that returns the current state of the models and engines of `service`, and
    of `jobs`."""

    def state() -> FleetState:
        models = [
            ModelState(model.name, *service.load_of(model), jobs.waiting.get(model.name, 0))
            for model in service.fleet.models
        ]
        return FleetState(models, [*map(_state_of, service.fleet.engines)])

    return state


def _state_of(engine: Engine) -> EngineState:
    ranks = engine.ranks if engine.args is None else engine.args.num_gpus
    return EngineState(
        name=engine.name,
        model="" if engine.model is None else engine.model.name,
        status=engine.status,
        in_flight=len(engine.flying),
        restarts=engine.restarts,
        ranks_up=[rank < engine.ranks for rank in range(ranks)],
    )


class Reports:
    """Reports tasks and their outputs to metrics and traces."""

    def __init__(self, metrics: Metrics, tracing: Tracing | None) -> None:
        self._metrics = metrics
        self._tracing = tracing
        self._alive: dict[str, tuple[str, Context | None, float]] = {}
        """By task: its model, the span around it, and when it started, on a monotonic clock."""

    def started(self, task: Task) -> None:
        here = None if self._tracing is None else self._tracing.here()
        self._alive[task.id] = task.model, here, time.monotonic()

    def made(self, task: Task, output: Output) -> None:
        model, parent, started = self._alive[task.id]
        elapsed = time.monotonic() - started
        timings = since_acceptance(output.timings, elapsed)
        self._metrics.made(model, output.pixels.shape, timings, output.batch_sizes)
        self._metrics.ended(model, "completed", elapsed)
        self._count(task, output)
        if self._tracing is not None and parent is not None:
            attributes = {
                "gen_ai.operation.name": "generate_content",
                "gen_ai.request.model": model,
                "gen_ai.output.type": "image" if output.fps is None else "video",
            }
            self._tracing.output(parent, task.created_at, timings, attributes)
        if task.done:
            del self._alive[task.id]

    def _count(self, task: Task, output: Output) -> None:
        total = self._metrics.keys.of(task.owner.name)
        total.requests["completed"] += 1
        total.images += output.pixels.shape[0]
        if output.usage is not None:
            total.megapixel_steps += output.usage.megapixel_steps
        if task.done:
            total.prompt_tokens += RequestUsage.of(task.requests, task.made).text_tokens

    def ended_early(self, task: Task) -> None:
        if task.id not in self._alive:
            return
        model, _, started = self._alive.pop(task.id)
        status = task.status if task.done else "refused"
        for output in task.outputs:
            if output is None:
                self._metrics.ended(model, status, time.monotonic() - started)
                self._metrics.keys.of(task.owner.name).requests[status] += 1


def since_acceptance(timings: Mapping[str, float], elapsed: float) -> dict[str, float]:
    """Return the engine's timings, in seconds, with the wait in this process added."""
    before = max(0.0, elapsed - timings.get("total", elapsed))
    queued = timings.get("queued", 0.0) + before
    return {**timings, "queued": queued, "total": elapsed}
