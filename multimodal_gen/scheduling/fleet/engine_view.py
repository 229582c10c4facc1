"""The front's view of one engine: its state, what it has in flight, what it holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from multimodal_gen.messages.evaluation_costs import EvaluationCosts
from multimodal_gen.scheduling.fleet.recently_held import RecentlyHeld
from multimodal_gen.scheduling.fleet.routed_request import RoutedRequest
from multimodal_gen.scheduling.fleet.work_line import LinePlace, WorkLine

EnginePhase = Literal["loading", "ready", "draining"]
LONG_EVALUATION_S = 1.0
"""Within an evaluation nothing can go before it: longer ones are kept apart from short jobs."""
LEVEL = 1e3
"""Orders of one priority lie within this much of each other."""
LEAST_S = 1e-6
LORAS_HELD, PROMPTS_HELD = 8, 256
LORA_S, PROMPT_S = 0.5, 0.1
"""Seconds that an engine is ahead for holding a request's LoRAs, and its prompt."""
MAX_SIZES = 512


@dataclass(slots=True)
class InFlight:
    """A request in an engine."""

    request: RoutedRequest
    evaluation_s: float
    total_s: float
    place: LinePlace
    suspect: bool
    cleared: bool = False


class EngineView:
    """One engine, as its front sees it. `most`: the most requests in flight there.

    The order of what it has in flight is the engine's own (`scheduling.policy`): priority, then the
    least remaining time total time; owners share it.
    """

    def __init__(self, name: str, model: str, *, most: int) -> None:
        self.name = name
        self.model = model
        self.most = most
        self.state: EnginePhase = "loading"
        self.flying: dict[str, InFlight] = {}
        self.longs = 0
        """Requests in flight whose evaluations are long."""
        self.kept_for: str | None = None
        """The suspect for which it is being emptied."""
        self._costs = EvaluationCosts()
        self._evaluation_s: dict[int, float] = {}
        self._lines: dict[str, WorkLine] = {}
        self._seconds = 0.0
        self._longest_s = 0.0
        self._loras = RecentlyHeld(LORAS_HELD)
        self._prompts = RecentlyHeld(PROMPTS_HELD)

    @property
    def seconds(self) -> float:
        """Predicted seconds of all that it has in flight."""
        return self._seconds

    @property
    def open(self) -> bool:
        """True if it takes another request that is not a suspect."""
        return len(self.flying) < self.most and self.kept_for is None and not self.suspected

    @property
    def suspected(self) -> bool:
        """True if a suspect runs there, alone."""
        return len(self.flying) == 1 and next(iter(self.flying.values())).suspect

    @property
    def cleared(self) -> bool:
        """True if something runs there that was a suspect."""
        return any(flying.cleared for flying in self.flying.values())

    # -- predictions

    def learn(self, costs: EvaluationCosts) -> None:
        """Predict by these costs from now on."""
        self._costs = costs
        self._evaluation_s.clear()

    def evaluation_s(self, tokens: int) -> float:
        found = self._evaluation_s.get(tokens)
        if found is None:
            if len(self._evaluation_s) >= MAX_SIZES:
                self._evaluation_s.clear()
            found = self._evaluation_s[tokens] = max(LEAST_S, self._costs.seconds(tokens))
        return found

    def predict(self, request: RoutedRequest) -> float:
        """Seconds of the request alone."""
        return request.evaluations * self.evaluation_s(request.tokens)

    def is_long(self, request: RoutedRequest) -> bool:
        return self.evaluation_s(request.tokens) > LONG_EVALUATION_S

    def ahead(self, request: RoutedRequest, now: float) -> float:
        """Seconds until the engine would begin the request, less those that it is worth to find its
        LoRAs and prompt there."""
        seconds = self.predict(request)
        line = self._lines.get(request.owner)
        own = 0.0 if line is None else line.before(_order(request, seconds, seconds, now))
        ahead = own + self._longest_s / 2
        if strangers := len(self._lines) - (line is not None):
            theirs = self._seconds - (0.0 if line is None else line.seconds)
            ahead += min(theirs, strangers * (own + seconds))
        return ahead - min(self._worth(request), seconds)

    def _worth(self, request: RoutedRequest) -> float:
        held = bool(request.loras) and all(lora in self._loras for lora in request.loras)
        encoded = request.prompt is not None and request.prompt in self._prompts
        return LORA_S * held + PROMPT_S * encoded

    # -- what is in flight

    def add(self, request: RoutedRequest, now: float) -> None:
        evaluation_s = self.evaluation_s(request.tokens)
        total_s = request.evaluations * evaluation_s
        place = _order(request, total_s, total_s, now), total_s
        self.flying[request.id] = InFlight(request, evaluation_s, total_s, place, request.suspect)
        self._lines.setdefault(request.owner, WorkLine()).add(place)
        self._loras.use(request.loras)
        self._prompts.use([request.prompt])
        self._sum()

    def progress(self, request_id: str, evaluations_left: int, now: float) -> None:
        """Note how much is left of a request in flight."""
        flying = self.flying[request_id]
        left = evaluations_left * flying.evaluation_s
        line = self._lines[flying.request.owner]
        line.remove(flying.place)
        flying.place = _order(flying.request, left, flying.total_s, now), left
        line.add(flying.place)
        self._sum()

    def remove(self, request_id: str) -> None:
        flying = self.flying.pop(request_id)
        line = self._lines[flying.request.owner]
        line.remove(flying.place)
        if not line:
            del self._lines[flying.request.owner]
        self._sum()

    def _sum(self) -> None:
        self._seconds = sum(line.seconds for line in self._lines.values())
        evaluations = [flying.evaluation_s for flying in self.flying.values()]
        self._longest_s = max(evaluations, default=0.0)
        self.longs = sum(seconds > LONG_EVALUATION_S for seconds in evaluations)


def _order(request: RoutedRequest, left: float, total: float, now: float) -> float:
    """Sort key in an engine; smaller goes first. Near its deadline a request is a level higher."""
    urgent = request.deadline is not None and request.deadline - now <= 2 * left
    return math.log(max(left * total, LEAST_S**2)) - LEVEL * (request.level + urgent)
