"""Chooses the engine that will serve a request first.

A request goes to the engine of its model with the least predicted work *ahead of it*: work in
flight that the engine's own policy would do first. The least work altogether would crowd short jobs
away from long ones, which they would overtake anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from multimodal_gen.messages.evaluation_costs import EvaluationCosts
from multimodal_gen.scheduling.fleet.engine_view import EnginePhase, EngineView
from multimodal_gen.scheduling.fleet.routed_request import RoutedRequest


class Router:
    """All engines behind a front, and where each request is.

    How to use it. The front says of a request that it `waits`, and keeps it in a line by
    `line(request)` (beside owner and
    whatever else orders them), and on every event asks `choose` for the first of each line. With an
    engine's name it sends the request there and says so by `sent`; with None that line waits for
    the next event. Then `progressed`, `cleared`, and `ended`, once it is neither waiting nor in
    flight. Each call takes O(engines of the model) or less, however many wait.
    """

    def __init__(self) -> None:
        self._engines: dict[str, EngineView] = {}
        self._of_model: dict[str, list[EngineView]] = {}
        """Engines that are ready, by model."""
        self._where: dict[str, EngineView] = {}
        """The engine of each request in flight."""
        self._waiting: dict[str, RoutedRequest] = {}
        self._evaluations: dict[str, Counter[int]] = {}
        """Evaluations that wait, by model and tokens."""
        self._known: dict[str, EngineView] = {}
        """The engine of each model that told its costs last, whether or not it still is there."""

    # -- engines

    def add(self, name: str, model: str, *, most: int, state: EnginePhase = "loading") -> None:
        """Know an engine, and the most requests that it should have in flight: a few batches, so
        that it can choose well, and what can wait elsewhere does not wait there."""
        self._engines[name] = EngineView(name, model, most=most)
        self.set_state(name, state)

    def remove(self, name: str) -> None:
        """Forget an engine, and that anything is in flight there."""
        engine = self._engines.pop(name)
        self._where = {id: at for id, at in self._where.items() if at is not engine}
        self._list(engine.model)

    def set_state(self, name: str, state: EnginePhase) -> None:
        """Only ready engines are chosen; what a draining one has in flight goes on."""
        engine = self._engines[name]
        engine.state = state
        self._list(engine.model)

    def learn(self, name: str, costs: EvaluationCosts) -> None:
        """Predict by the costs that this engine reported."""
        engine = self._engines[name]
        engine.learn(costs)
        self._known[engine.model] = engine

    def engines(self, model: str) -> Sequence[EngineView]:
        """Engines of a model that are ready."""
        return self._of_model.get(model, ())

    def ready(self, model: str) -> Sequence[str]:
        """Names of the engines of a model that are ready."""
        return [engine.name for engine in self.engines(model)]

    def flying(self, name: str) -> list[str]:
        """Ids of the requests that an engine has in flight."""
        return list(self._engines[name].flying)

    def in_flight(self, name: str) -> int:
        return len(self._engines[name].flying)

    def room(self, model: str) -> int:
        """Number of requests that may be sent before all engines of the model are full."""
        engines = self._of_model.get(model, ())
        return sum(engine.most - len(engine.flying) for engine in engines)

    def seconds(self, model: str) -> float:
        """Predicted seconds of all work in flight in ready engines of the model."""
        return sum(engine.seconds for engine in self._of_model.get(model, ()))

    def seconds_waiting(self, model: str) -> float:
        """Predicted seconds of all requests that wait for the model; 0 if none of its engines told
        its costs yet."""
        if (known := self._known.get(model)) is None:
            return 0.0
        waiting: Counter[int] = self._evaluations.get(model, Counter())
        return sum(known.evaluation_s(tokens) * count for tokens, count in waiting.items())

    # -- requests

    def waits(self, request: RoutedRequest) -> None:
        """The request waits at the front, until it is `sent` or has `ended`."""
        self._wait_no_longer(request.id)
        self._waiting[request.id] = request
        self._evaluations.setdefault(request.model, Counter())[request.tokens] += (
            request.evaluations
        )

    def line(self, request: RoutedRequest) -> Hashable:
        """Requests of one line wait for the same engines: if the first has none, nor has another.

        It may change when engines come, go or learn; then at worst a request waits behind one of
        another kind."""
        known = self._known.get(request.model)
        long = known is not None and known.is_long(request)
        return request.model, request.suspect, long

    def choose(self, request: RoutedRequest, now: float) -> str | None:
        """Return the engine that should serve the request, or None: it waits.

        A suspect gets an engine without neighbours; if none is free, one is emptied for it, until
        it is `sent` or has `ended`.
        """
        engines = self._of_model.get(request.model, [])
        if request.suspect:
            return self._alone(request, engines)
        open_ones = [engine for engine in engines if engine.open]
        if open_ones and open_ones[0].is_long(request):
            open_ones = _beside_short_jobs(engines, open_ones)
        best = min(open_ones, key=lambda e: (e.ahead(request, now), len(e.flying)), default=None)
        return None if best is None else best.name

    def sent(self, request: RoutedRequest, name: str, now: float) -> None:
        """The request is in flight in that engine."""
        self._keep_no_longer(request.id)
        self._wait_no_longer(request.id)
        engine = self._engines[name]
        engine.add(request, now)
        self._where[request.id] = engine

    def progressed(self, request_id: str, evaluations_left: int, now: float) -> None:
        """The engine said how far it is. Unknown requests are ignored."""
        engine = self._where.get(request_id)
        if engine is not None:
            engine.progress(request_id, evaluations_left, now)

    def cleared(self, request_id: str) -> None:
        """A suspect in flight is none any more: others may join it."""
        engine = self._where.get(request_id)
        if engine is not None:
            engine.flying[request_id].suspect = False
            engine.flying[request_id].cleared = True

    def ended(self, request_id: str) -> None:
        """The request neither waits nor is in flight, nor does an engine have to be emptied for it.
        Unknown requests are ignored."""
        self._keep_no_longer(request_id)
        self._wait_no_longer(request_id)
        engine = self._where.pop(request_id, None)
        if engine is not None:
            engine.remove(request_id)

    # -- inside

    def _list(self, model: str) -> None:
        engines = [engine for engine in self._engines.values() if engine.model == model]
        self._of_model[model] = [engine for engine in engines if engine.state == "ready"]
        if not engines:
            del self._of_model[model]

    def _alone(self, request: RoutedRequest, engines: Sequence[EngineView]) -> str | None:
        """An engine with nothing else, or None; then the one that will be empty first takes no
        more. One that runs what was a suspect until lately is left alone: it may run for long."""
        for engine in engines:
            if not engine.flying and engine.kept_for in (None, request.id):
                return engine.name
        if not any(engine.kept_for == request.id for engine in engines):
            free = [e for e in engines if e.kept_for is None and not e.suspected and not e.cleared]
            if free:
                min(free, key=lambda engine: engine.seconds).kept_for = request.id
        return None

    def _wait_no_longer(self, request_id: str) -> None:
        if (request := self._waiting.pop(request_id, None)) is None:
            return
        waiting = self._evaluations[request.model]
        waiting[request.tokens] -= request.evaluations
        if not waiting[request.tokens]:
            del waiting[request.tokens]

    def _keep_no_longer(self, request_id: str) -> None:
        for engine in self._engines.values():
            if engine.kept_for == request_id:
                engine.kept_for = None


def _beside_short_jobs(
    engines: Sequence[EngineView], open_ones: list[EngineView]
) -> list[EngineView]:
    """Engines that may run a long evaluation: those that run some already, and others as long as
    one is left for short jobs, where there are any."""
    without = [engine for engine in engines if not engine.longs]
    short_jobs = any(engine.flying for engine in without)
    if len(without) > 1 or not short_jobs:
        return open_ones
    return [engine for engine in open_ones if engine.longs]
