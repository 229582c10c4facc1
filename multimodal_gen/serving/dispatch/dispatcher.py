"""Sends requests to engines, and again those whose engine died."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from multimodal_gen.client.request_handle import Output, RequestEvent, RequestHandle, Update
from multimodal_gen.configs.second_pass import expected_steps
from multimodal_gen.errors import (
    EngineDied,
    EngineNotReady,
    GenerationFailed,
    MultimodalGenError,
    QueueFull,
)
from multimodal_gen.messages.request import Req
from multimodal_gen.serving.dispatch.deadline_timer import DeadlineTimer
from multimodal_gen.serving.dispatch.places import Places
from multimodal_gen.serving.dispatch.routing import Routing
from multimodal_gen.serving.dispatch.ticket import Ticket
from multimodal_gen.serving.dispatch.waiting_room import WaitingRoom
from multimodal_gen.serving.fleet.engine import Engine
from multimodal_gen.serving.fleet.served_model import ServedModel
from multimodal_gen.serving.owner import Owner, Share

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)
RETRY_S = 1.0


@dataclass(frozen=True)
class QueueLimits:
    """Limits on accepted requests and on those sent to an engine."""

    capacity: int = 256
    """Maximum number of queued and running requests."""
    in_flight: int = 64
    """Maximum number of requests in an engine: enough to choose and batch well."""
    shares: Mapping[str, Share] = field(default_factory=dict)
    """By owner's name. Where there are several, each has a share of the queue's places."""


class Dispatcher:
    """The queue in front of the engines. Runs on one event loop.

    For each model, the owner with the fewest requests in flight for its weight goes next, then the
    one served least; per owner by priority and age. With `replay`, requests whose engine died go
    to another engine of their model; without, they fail with its error. Whatever goes wrong with
    one request ends that one only.
    """

    def __init__(self, limits: QueueLimits, *, replay: bool = True) -> None:
        self._limits = limits
        self._replay = replay
        self._waiting = WaitingRoom(self._share_of)
        self._routing = Routing(self._waiting, limits.in_flight)
        self._flying: dict[Ticket, Engine] = {}
        self._in_engines: Counter[ServedModel] = Counter()
        self._begun = 0
        """Requests that engines have started."""
        self._stopped = False
        self._alive: Counter[str] = Counter()
        self._deadlines = DeadlineTimer(self._expire)
        self._places = Places(lambda: self._waiting.places, self._tell_place)
        self._numbers = itertools.count()
        self._following: set[asyncio.Task[None]] = set()

    def grant(self, shares: Mapping[str, Share]) -> None:
        """Use this mapping for owners' shares; it is looked up on each use."""
        self._limits = replace(self._limits, shares=shares)

    def hold_durable(self) -> None:
        """Keep back queued requests that the next server can resume."""
        self._waiting.hold_durable()

    @property
    def several_owners(self) -> bool:
        return len(self._limits.shares) > 1

    @property
    def running(self) -> int:
        """Number of requests that engines have started."""
        return self._begun

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._flying) - self.running

    def put(
        self,
        requests: Sequence[Req],
        pictures: Sequence[np.ndarray[Any, Any]],
        model: ServedModel,
        owner: Owner,
        tell: Callable[[int, RequestEvent], None],
        *,
        durable: bool = False,
        bounded: bool = True,
    ) -> list[Ticket]:
        """Accept all of `requests` or none. `tell` receives the events of each with its index.
        Raises QueueFull."""
        if bounded:
            self.check_room(len(requests), owner)
        tickets = [
            Ticket(
                req=req,
                pictures=pictures,
                model=model,
                owner=owner,
                number=next(self._numbers),
                tell=partial(tell, index),
                durable=durable,
            )
            for index, req in enumerate(requests)
        ]
        for ticket in tickets:
            self._alive[owner.name] += 1
            self._waiting.enter(ticket)
            self._wait(ticket)
        self.pump()
        return tickets

    def check_room(self, count: int, owner: Owner, everywhere: Counter[str] | None = None) -> None:
        """Raise QueueFull if there are no `count` places, or the owner has its share of them: as
        many, times its weight, as are free. Its only request always has places if there are any:
        waiting would not give it more. `everywhere` counts by owner what is queued or running on
        all fronts, where there are several."""
        counts = self._alive if everywhere is None else everywhere
        alive, most = counts.total(), self._limits.capacity
        if alive + count > most:
            what = f"{alive} of at most {most} requests are queued or running"
            raise QueueFull(f"no room for {count} more: {what}", self._room_in_s())
        own, free = counts[owner.name], most - alive
        share = self._share_of(owner.name).weight * free
        if self.several_owners and own and own + count > share:
            what = f"{own} of this key's are queued or running, and the {free} free places are kept"
            raise QueueFull(f"no room for {count} more: {what} for other keys", self._room_in_s())

    def drop(self, ticket: Ticket) -> None:
        """Cancel a request: it ends as soon as the engine has released it."""
        ticket.dropped = True
        if ticket in self._flying:
            if ticket.handle is not None:
                ticket.handle.cancel()
        elif ticket in self._waiting:
            self._leave(ticket)

    def fail_all(self, error: MultimodalGenError) -> None:
        """Fail all requests with `error`, and send no more."""
        self._stopped = True
        for ticket in self._flying:
            ticket.dropped = True
        for ticket in [*self._flying, *self._waiting.tickets]:
            self._tell(ticket, error)
        for ticket in self._waiting.tickets:
            self._leave(ticket)

    def fail_waiting(self, model: ServedModel, error: MultimodalGenError) -> None:
        """Fail the requests that wait for a model."""
        for ticket in [*self._waiting.of_model(model)]:
            self._end(ticket, error)

    # -- sending

    def pump(self) -> None:
        """Send as many requests as the limits allow."""
        for model in () if self._stopped else self._waiting.models:
            while sending := self._routing.next(model, several_owners=self.several_owners):
                self._send(*sending)

    def engine_changed(self, engine: Engine) -> None:
        """Note an engine's status, and send to it what it can take."""
        self._routing.engine_changed(engine)
        if engine.accepts:
            self.pump()

    def backlog_s(self, model: ServedModel) -> float:
        """Predicted seconds of all requests of a model, in flight and waiting."""
        return self._routing.backlog_s(model)

    def count(self, model: ServedModel) -> int:
        """Number of requests that wait for an engine of `model`."""
        return self._waiting.count(model)

    def _send(self, ticket: Ticket, engine: Engine) -> None:
        assert engine.client is not None
        self._stop_waiting(ticket)
        try:
            request = ticket.request(self._share_of(ticket.owner.name), time.monotonic())
            handle = engine.client.submit(request, ticket.pictures)
        except Exception as error:
            if self._replay and engine.died is not None:
                self._routing.engine_changed(engine)
                self._wait(ticket)
            else:
                self._end(ticket, _ours(error))
            return
        ticket.handle = handle
        self._flying[ticket] = engine
        self._in_engines[ticket.model] += 1
        engine.flying[ticket] = None
        self._waiting.sent(ticket)
        self._routing.sent(ticket, engine)
        following = asyncio.get_running_loop().create_task(self._follow(ticket, handle))
        self._following.add(following)
        following.add_done_callback(self._following.discard)

    # -- hearing

    async def _follow(self, ticket: Ticket, handle: RequestHandle) -> None:
        try:
            await handle.report(lambda event: self._hear(ticket, event))
        except Exception as error:
            if ticket in self._flying:
                handle.cancel()
                self._land(ticket)
                self._end(ticket, _ours(error))
        self.pump()

    def _hear(self, ticket: Ticket, event: RequestEvent) -> None:
        if not isinstance(event, Update):
            self._ended(ticket, event)
            return
        suspected, begun = ticket.suspect, ticket.begun
        ticket.update(event, time.monotonic())
        self._begun += bool(ticket.begun) - bool(begun)
        if (engine := self._flying.get(ticket)) is not None:
            self._routing.progressed(ticket, engine)
        if not ticket.dropped:
            self._tell(ticket, event)
        if suspected and not ticket.suspect:
            self._routing.cleared(ticket)
            self.pump()

    def _ended(self, ticket: Ticket, outcome: Output | MultimodalGenError) -> None:
        self._land(ticket)
        if ticket.dropped:
            self._leave(ticket)
        elif isinstance(outcome, EngineDied | EngineNotReady) and self._replay:
            # An engine that was stopped died of no request.
            verdict = ticket.outlived(outcome) if isinstance(outcome, EngineDied) else None
            if verdict is not None:
                self._end(ticket, verdict)
            else:
                ticket.come_back()
                self._wait(ticket)
        else:
            self._end(ticket, outcome)

    def _land(self, ticket: Ticket) -> None:
        engine = self._flying.pop(ticket)
        self._in_engines[ticket.model] -= 1
        self._begun -= bool(ticket.begun)
        engine.landed(ticket)
        self._routing.ended(ticket, engine)
        self._waiting.came_out(ticket)

    # -- waiting and leaving

    def _wait(self, ticket: Ticket) -> None:
        ticket.line = self._routing.waits(ticket)
        self._waiting.add(ticket)
        self._deadlines.watch(ticket)
        self._places.changed()
        self._tell_place(ticket, self._waiting.count(ticket.model) - 1)

    def _stop_waiting(self, ticket: Ticket) -> None:
        self._waiting.discard(ticket)
        self._deadlines.discard(ticket)
        self._places.changed()

    def _expire(self, ticket: Ticket) -> None:
        self._end(ticket, ticket.too_late())

    def _end(self, ticket: Ticket, outcome: Output | MultimodalGenError) -> None:
        """Tell a request's end, and forget it."""
        self._leave(ticket)
        self._tell(ticket, outcome)

    def _leave(self, ticket: Ticket) -> None:
        self._stop_waiting(ticket)
        self._waiting.leave(ticket)
        self._routing.gone(ticket)
        self._alive[ticket.owner.name] -= 1
        ticket.pictures = ()

    def _tell(self, ticket: Ticket, event: RequestEvent) -> None:
        """Pass an event on. A receiver that fails ends its own request only."""
        try:
            ticket.tell(event)
        except Exception as error:
            failure = _ours(error)
            try:
                ticket.tell(failure)
            except Exception:
                log.exception("request %s: its end could not be told", ticket.req.id)
            self.drop(ticket)

    def _tell_place(self, ticket: Ticket, place: int) -> None:
        """Report a queue position: requests here are behind all of those in the model's engines."""
        if ticket in self._waiting:
            total = expected_steps(ticket.req.params)
            ahead = max(1, self._in_engines[ticket.model] + place)
            self._tell(ticket, Update(ticket.req.id, 0, total, ahead, None, None))

    def _room_in_s(self) -> float:
        """Seconds until the first request in an engine is done."""
        etas = [ticket.eta_s for ticket in self._flying if ticket.eta_s is not None]
        return max(RETRY_S, min(etas, default=RETRY_S))

    def _share_of(self, name: str) -> Share:
        return self._limits.shares.get(name) or Share()


def _ours(error: Exception) -> MultimodalGenError:
    if isinstance(error, MultimodalGenError):
        return error
    log.error("a request failed in the queue", exc_info=error)
    return GenerationFailed(f"the request failed in the queue: {type(error).__name__}")
