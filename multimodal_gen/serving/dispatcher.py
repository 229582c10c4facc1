"""Chooses the next request for the engine, and retries requests whose engine died."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from multimodal_gen.client.request_handle import Output, RequestEvent, Update
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.errors import (
    Cancelled,
    EngineDied,
    MultimodalGenError,
    QueueFull,
)
from multimodal_gen.messages.request import Req
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.ticket import Ticket

if TYPE_CHECKING:
    import numpy as np


RETRY_S = 1.0


@dataclass(frozen=True)
class QueueLimits:
    """Limits on accepted requests and on those sent to the engine."""

    capacity: int = 256
    """Maximum number of queued and running requests."""
    in_flight: int = 64
    """Maximum number of requests in the engine: enough to choose and batch well."""
    concurrency: Mapping[str, int] = field(default_factory=dict)
    """Per owner's name: maximum number of requests in the engine."""


class Dispatcher:
    """The queue in front of the engine. Runs on one event loop.

    The owner with the fewest requests in flight goes next, then the one served least; per owner the
    first accepted (within a priority). With `replay`, requests whose engine died wait for the next
    engine; without, they fail with its error.
    """

    def __init__(self, limits: QueueLimits, *, replay: bool = True) -> None:
        self._limits = limits
        self._replay = replay
        self._client: SchedulerClient | None = None
        self._waiting: list[Ticket] = []
        self._flying: list[Ticket] = []
        self._served: Counter[str] = Counter()
        self._numbers = itertools.count()
        self._following: set[asyncio.Task[None]] = set()
        self.hold_durable = False
        """Hold back queued requests that the next server can resume."""

    def limit_owners(self, concurrency: Mapping[str, int]) -> None:
        """Use this mapping for owners' limits; it is looked up on each use."""
        self._limits = replace(self._limits, concurrency=concurrency)

    @property
    def running(self) -> int:
        """Number of requests that the engine has started."""
        return sum(ticket.begun is True for ticket in self._flying)

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._flying) - self.running

    def put(
        self,
        requests: Sequence[Req],
        pictures: Sequence[np.ndarray[Any, Any]],
        owner: Owner,
        tell: Callable[[int, RequestEvent], None],
        *,
        durable: bool = False,
        bounded: bool = True,
    ) -> list[Ticket]:
        """Accept all of `requests` or none. `tell` receives the events of each with its index.
        Raises QueueFull."""
        if bounded:
            self.check_room(len(requests))
        tickets = [
            Ticket(
                req=req,
                pictures=pictures,
                owner=owner,
                number=next(self._numbers),
                tell=partial(tell, index),
                durable=durable,
            )
            for index, req in enumerate(requests)
        ]
        self._waiting.extend(tickets)
        self._make_way_for(owner)
        self.pump()
        return tickets

    def check_room(self, count: int) -> None:
        """Raise QueueFull if `count` more requests exceed the capacity."""
        alive = len(self._waiting) + len(self._flying)
        if alive + count > self._limits.capacity:
            what = f"{alive} of at most {self._limits.capacity} requests are queued or running"
            raise QueueFull(f"no room for {count} more: {what}", self._room_in_s())

    def drop(self, ticket: Ticket) -> None:
        """Cancel a request: it ends as soon as the engine has released it."""
        ticket.dropped = True
        if ticket.handle is not None:
            ticket.handle.cancel()
        elif ticket in self._waiting:
            self._waiting.remove(ticket)
            self._tell_places()

    def attach(self, client: SchedulerClient) -> None:
        """Send requests to this engine from now on."""
        self._client = client
        self.pump()

    def detach(self) -> None:
        """Stop sending: the engine is lost. Its client fails each of its requests with the
        error."""
        self._client = None

    def fail_all(self, error: MultimodalGenError) -> None:
        """Fail all requests with `error`."""
        self._client = None
        for ticket in [*self._flying, *self._waiting]:
            ticket.dropped = True
            ticket.tell(error)
        self._waiting.clear()

    # -- sending

    def pump(self) -> None:
        """Send as many requests as the limits allow."""
        while self._client is not None and (ticket := self._next()) is not None:
            self._waiting.remove(ticket)
            self._send(ticket, self._client)
        self._tell_places()

    def _next(self) -> Ticket | None:
        if len(self._flying) >= self._limits.in_flight:
            return None
        now = time.monotonic()
        flying = Counter(ticket.owner.name for ticket in self._flying)
        suspected = any(ticket.suspect for ticket in self._flying)

        def may_go(ticket: Ticket) -> bool:
            name = ticket.owner.name
            return (
                flying[name] < self._limits.concurrency.get(name, math.inf)
                and not (ticket.suspect and suspected)
                and not (ticket.durable and self.hold_durable)
            )

        def order(ticket: Ticket) -> tuple[float, int, int, int]:
            name = ticket.owner.name
            return -ticket.rank(now), flying[name], self._served[name], ticket.number

        return min(filter(may_go, self._waiting), key=order, default=None)

    def _send(self, ticket: Ticket, client: SchedulerClient) -> None:
        try:
            request = ticket.request(time.monotonic())
            ticket.handle = client.submit(request, ticket.pictures)
        except MultimodalGenError as error:
            if self._replay and client.died is not None:
                self._client = None
                self._waiting.append(ticket)
            else:
                ticket.tell(error)
            return
        self._flying.append(ticket)
        following = asyncio.get_running_loop().create_task(
            ticket.handle.report(lambda event: self._hear(ticket, event, client))
        )
        self._following.add(following)
        following.add_done_callback(self._following.discard)

    def _make_way_for(self, owner: Owner) -> None:
        """Let an owner with nothing in flight go before requests that only wait in the engine's own
        queue: those are recalled, and sent again in turn."""
        if any(ticket.owner == owner for ticket in self._flying):
            return
        for ticket in self._flying:
            if ticket.waits_inside and ticket.handle is not None:
                ticket.recalled = True
                ticket.handle.cancel()

    # -- hearing

    def _hear(self, ticket: Ticket, event: RequestEvent, client: SchedulerClient) -> None:
        if isinstance(event, Update):
            self._moved(ticket, event)
        else:
            self._ended(ticket, event, client)

    def _moved(self, ticket: Ticket, event: Update) -> None:
        cleared = ticket.suspect
        ticket.update(event)
        if not ticket.dropped:
            ticket.tell(event)
        if cleared and not ticket.suspect:
            self.pump()

    def _ended(
        self, ticket: Ticket, outcome: Output | MultimodalGenError, client: SchedulerClient
    ) -> None:
        self._flying.remove(ticket)
        if ticket.dropped:
            self.pump()
            return
        if isinstance(outcome, Cancelled) and ticket.recalled:
            self._come_back(ticket)
        elif isinstance(outcome, EngineDied) and self._replay:
            if self._client is client:
                self._client = None  # before the supervisor notices
            verdict = ticket.outlived(outcome)
            if verdict is None:
                self._come_back(ticket)
            else:
                ticket.tell(verdict)
        else:
            self._served[ticket.owner.name] += 1
            ticket.tell(outcome)
        self.pump()

    def _come_back(self, ticket: Ticket) -> None:
        ticket.handle, ticket.recalled = None, False
        ticket.step, ticket.begun, ticket.eta_s = 0, None, None
        self._waiting.append(ticket)

    def _tell_places(self) -> None:
        """Report queue positions: requests here are behind all of those in the engine."""
        ahead = len(self._flying)
        self._waiting.sort(key=lambda ticket: ticket.number)
        for place, ticket in enumerate(self._waiting):
            total = ticket.req.params.num_inference_steps or 1
            ticket.tell(Update(ticket.req.id, 0, total, max(1, ahead + place), None, None))

    def _room_in_s(self) -> float:
        """Seconds until the first request in the engine is done."""
        etas = [ticket.eta_s for ticket in self._flying if ticket.eta_s is not None]
        return max(RETRY_S, min(etas, default=RETRY_S))
