"""State of the whole server, as its operator sees it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from multimodal_gen.entrypoints.http.ops.operator.recent_failures import RecentFailures
from multimodal_gen.entrypoints.http.transport.key_ring import KeyRing
from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.messages.reply import RankMemory
from multimodal_gen.observability.key_totals import KeyTotal, KeyTotals
from multimodal_gen.observability.log_tail import LOG_TAIL
from multimodal_gen.serving.fleet.engine import Engine
from multimodal_gen.serving.health import EngineReport
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.service import Service
from multimodal_gen.serving.task import Task
from multimodal_gen.version import __version__

_ANSWER_S = 1.0
"""Time for an engine to tell its memory."""


@dataclass
class ServerState:
    """Collects the state of the queue, engines, keys, failures and log."""

    service: Service
    jobs: Jobs
    ring: KeyRing
    keys: KeyTotals
    failures: RecentFailures
    capacity: int
    started: float = field(default_factory=time.monotonic)

    async def now(self) -> dict[str, Any]:
        """Return the current state as JSON."""
        health, tasks = self.service.health(), self.service.tasks
        return {
            "version": __version__,
            "uptime_s": round(time.monotonic() - self.started, 1),
            "phase": health.phase,
            "reason": health.reason,
            "queue": {
                "running": health.running,
                "waiting": health.waiting,
                "capacity": self.capacity,
                "oldest_s": _oldest_s(tasks),
                "by_priority": _by_priority(tasks),
                "not_taken": sum(self.jobs.waiting.values()),
            },
            "models": [*self._models()],
            "engines": await asyncio.gather(*map(_engine, self.service.fleet.engines)),
            "keys": [*self._keys(tasks)],
            "failures": [asdict(failure) for failure in self.failures.newest_first],
            "log": LOG_TAIL.entries,
        }

    def _models(self) -> Iterable[dict[str, Any]]:
        for model in self.service.fleet.models:
            running, waiting, backlog_s = self.service.load_of(model)
            yield {
                "name": model.name,
                "status": model.status,
                "running": running,
                "waiting": waiting,
                "backlog_s": round(backlog_s, 1),
                "residency": "" if model.info is None else model.info.residency,
            }

    def _keys(self, tasks: Sequence[Task]) -> Iterable[dict[str, Any]]:
        """Every key of the ring, and others that were used."""
        active = Counter(task.owner.name for task in tasks)
        totals: Mapping[str, KeyTotal] = self.keys.by_key
        for name in sorted({*self.ring.shares, *totals, *active}):
            yield {"name": name, "active": active[name], **vars(totals.get(name, KeyTotal()))}


def _oldest_s(tasks: Sequence[Task]) -> float | None:
    """Age of the oldest request of which nothing has begun."""
    queued = (task.created_at for task in tasks if task.status == "queued")
    oldest = min(queued, default=None)
    return None if oldest is None else round(max(0.0, time.time() - oldest), 1)


def _by_priority(tasks: Sequence[Task]) -> dict[str, dict[str, int]]:
    """Numbers of running and waiting outputs."""
    counts: dict[str, dict[str, int]] = {}
    for task in tasks:
        for req, update, output in zip(task.requests, task.updates, task.outputs, strict=True):
            if output is None:
                here = counts.setdefault(req.params.priority, {"running": 0, "waiting": 0})
                here["waiting" if update.queue_position else "running"] += 1
    return counts


async def _engine(engine: Engine) -> dict[str, Any]:
    report = asdict(EngineReport.of(engine))
    memory = await asyncio.to_thread(_memory, engine)
    return {**report, "memory": [msgspec.structs.asdict(rank) for rank in memory]}


def _memory(engine: Engine) -> Sequence[RankMemory]:
    """Memory of an engine's ranks; none if it does not answer."""
    if engine.client is None or engine.status not in ("ready", "draining"):
        return ()
    try:
        return engine.client.health(_ANSWER_S).memory
    except (MultimodalGenError, TimeoutError):
        return ()
