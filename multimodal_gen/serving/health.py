"""State of a server and its engines, for probes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from multimodal_gen.serving.fleet.engine import Engine, EngineStatus, LoadedSoFar

ServerPhase = Literal["loading", "ready", "restarting", "stopping", "failed"]


@dataclass(frozen=True)
class EngineReport:
    """State of one engine."""

    name: str
    model: str
    status: EngineStatus
    ranks: int
    in_flight: int
    restarts: int
    reason: str | None
    """Reason that it is not ready, if there is one."""
    loading: LoadedSoFar | None

    @classmethod
    def of(cls, engine: Engine) -> EngineReport:
        reason = None if engine.status == "ready" else engine.failure or engine.loss
        return cls(
            name=engine.name,
            model="" if engine.model is None else engine.model.name,
            status=engine.status,
            ranks=engine.ranks,
            in_flight=len(engine.flying),
            restarts=engine.restarts,
            reason=None if reason is None else reason.message,
            loading=engine.loading,
        )


@dataclass(frozen=True)
class ServerHealth:
    """Current state, without asking the engines."""

    phase: ServerPhase
    """That of the default model, unless the server is stopping."""
    ranks: int
    """Ranks that are ready, of all engines."""
    running: int
    """Number of requests that engines have started."""
    waiting: int
    restarts: int
    reason: str | None
    """Reason that it is not ready, if it is not."""
    loading: LoadedSoFar | None
    """Progress of an engine that is loading."""
    engines: tuple[EngineReport, ...]
