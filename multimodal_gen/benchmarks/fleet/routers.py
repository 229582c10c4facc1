"""Production's router, and what it is compared with."""

from __future__ import annotations

from multimodal_gen.scheduling.fleet.routed_request import RoutedRequest
from multimodal_gen.scheduling.fleet.router import Router


class LeastConnections(Router):
    """Sends a request to the engine with the fewest, as load balancers do."""

    def choose(self, request: RoutedRequest, now: float) -> str | None:
        if request.suspect:
            return super().choose(request, now)
        engines = [engine for engine in self.engines(request.model) if engine.open]
        return min(engines, key=lambda engine: len(engine.flying)).name if engines else None
