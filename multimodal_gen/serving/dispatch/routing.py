"""Chooses which waiting request goes next, and to which engine of its model."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import replace

from multimodal_gen.configs.second_pass import expected_steps
from multimodal_gen.messages.evaluation_costs import EvaluationCosts
from multimodal_gen.scheduling.fleet.engine_view import EnginePhase
from multimodal_gen.scheduling.fleet.routed_request import RoutedRequest
from multimodal_gen.scheduling.fleet.router import Router
from multimodal_gen.serving.dispatch.ticket import Ticket
from multimodal_gen.serving.dispatch.waiting_room import WaitingRoom
from multimodal_gen.serving.fleet.engine import Engine
from multimodal_gen.serving.fleet.served_model import ServedModel

KEPT_PART = 8
"""Where there are several owners, one in so many places in the engines is kept for those that have
nothing in any."""


class Routing:
    """The front's side of the Router: it knows tickets and engines, which that one does not."""

    def __init__(self, waiting: WaitingRoom, most: int) -> None:
        """`most`: the most requests in one engine."""
        self._waiting = waiting
        self._most = most
        self._router = Router()
        self._engines: dict[str, Engine] = {}
        self._costs: dict[Engine, EvaluationCosts] = {}
        self._tried_next: dict[ServedModel, Ticket] = {}
        """The suspect for which an engine of the model is being emptied."""

    # -- engines

    def engine_changed(self, engine: Engine) -> None:
        """Note its status. One that became ready holds nothing yet."""
        if engine.accepts and engine.model is not None:
            self._forget(engine)
            self._engines[engine.name] = engine
            self._router.add(engine.name, engine.model.name, most=self._most, state="ready")
            self.learn(engine)
        elif engine.name in self._engines:
            state: EnginePhase = "draining" if engine.status == "draining" else "loading"
            self._router.set_state(engine.name, state)

    def learn(self, engine: Engine) -> None:
        """Predict by the newest costs that the engine reported."""
        costs = None if engine.client is None else engine.client.costs
        if costs is not None and self._costs.get(engine) is not costs:
            self._costs[engine] = costs
            self._router.learn(engine.name, costs)

    def _forget(self, engine: Engine) -> None:
        if self._engines.pop(engine.name, None) is not None:
            self._router.remove(engine.name)
            del self._costs[engine]

    # -- requests

    def line(self, ticket: Ticket) -> Hashable:
        """Requests of one line wait for the same engines."""
        described = _described(ticket)
        return None if described is None else self._router.line(described)

    def waits(self, ticket: Ticket) -> Hashable:
        """Count it among the waiting ones, and return its line."""
        if (described := _described(ticket)) is not None:
            self._router.waits(described)
        return self.line(ticket)

    def next(self, model: ServedModel, *, several_owners: bool) -> tuple[Ticket, Engine] | None:
        """The next request of `model`, if an engine has room for it.

        What may have killed an engine is tried in one without neighbours. While there is such a
        request, one engine is emptied for it; the others go on, and try such requests only if they
        have nothing else to do.
        """
        if (ticket := self._suspect(model)) and (name := self._choose(ticket)) is not None:
            return ticket, self._engines[name]
        refused: set[Hashable] = set()
        newcomers_only = several_owners and self._is_nearly_full(model)
        for ticket in self._waiting.firsts(model, newcomers_only=newcomers_only):
            if (line := self.line(ticket)) in refused:
                continue
            if (name := self._choose(ticket)) is not None:
                return ticket, self._engines[name]
            refused.add(line)
        return None

    def sent(self, ticket: Ticket, engine: Engine) -> None:
        if (described := _described(ticket)) is not None:
            self._router.sent(described, engine.name, time.monotonic())
        if self._tried_next.get(ticket.model) is ticket:
            del self._tried_next[ticket.model]

    def progressed(self, ticket: Ticket, engine: Engine) -> None:
        """The engine told how far it is."""
        self.learn(engine)
        left = expected_steps(ticket.req.params) - ticket.step
        self._router.progressed(ticket.req.id, max(0, left), time.monotonic())

    def cleared(self, ticket: Ticket) -> None:
        self._router.cleared(ticket.req.id)

    def ended(self, ticket: Ticket, engine: Engine) -> None:
        """It is no longer in that engine, which may have died with it."""
        self._router.ended(ticket.req.id)
        if engine.died is not None:
            self.engine_changed(engine)

    def gone(self, ticket: Ticket) -> None:
        """It neither waits nor flies any more."""
        self._router.ended(ticket.req.id)
        if self._tried_next.get(ticket.model) is ticket:
            del self._tried_next[ticket.model]

    def backlog_s(self, model: ServedModel) -> float:
        """Predicted seconds of all requests of a model, in flight and waiting."""
        return self._router.seconds(model.name) + self._router.seconds_waiting(model.name)

    # -- choosing

    def _choose(self, ticket: Ticket) -> str | None:
        described = _described(ticket)
        if described is None or not self._router.ready(ticket.model.name):
            return None
        return self._router.choose(described, time.monotonic())

    def _suspect(self, model: ServedModel) -> Ticket | None:
        """The suspect to try now, or to empty an engine for."""
        known = self._tried_next.get(model)
        suspect = known if known in self._waiting else self._waiting.suspect(model)
        if suspect is None:
            return None
        names = self._router.ready(model.name)
        tried = any(self._engines[name].tries_suspect for name in names)
        if not tried:
            self._tried_next[model] = suspect
        elif self._waiting.firsts(model) or all(map(self._router.in_flight, names)):
            return None
        return suspect

    def _is_nearly_full(self, model: ServedModel) -> bool:
        kept = self._most // KEPT_PART * len(self._router.ready(model.name))
        return self._router.room(model.name) <= kept


def _described(ticket: Ticket) -> RoutedRequest | None:
    """Description of a ticket for the router; None while its model is unknown."""
    if ticket.model.info is None:
        return None
    found = ticket.routed
    if found is None or found.suspect != ticket.suspect:
        described = RoutedRequest.of(
            ticket.req, ticket.model.info, deadline=ticket.deadline, suspect=ticket.suspect
        )
        ticket.routed = found = replace(described, owner=ticket.owner.name)
    return found
