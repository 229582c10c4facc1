"""Runs jobs through a front and its engines, in simulated time."""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from multimodal_gen.benchmarks.fleet.engine import SimulatedEngine
from multimodal_gen.benchmarks.fleet.workload import SimulatedJob, model_info
from multimodal_gen.client.request_handle import Update
from multimodal_gen.errors import DeadlineExceeded, EngineDied
from multimodal_gen.scheduling.fleet.routed_request import RoutedRequest
from multimodal_gen.scheduling.fleet.router import Router
from multimodal_gen.serving.dispatch.ticket import Ticket
from multimodal_gen.serving.dispatch.waiting_room import WaitingRoom
from multimodal_gen.serving.fleet.served_model import ServedModel
from multimodal_gen.serving.owner import Owner, Share

IN_FLIGHT = 32
"""The most requests in an engine: four batches, as a server's default."""
DOWN_S = 30.0
HEARD_EVERY_S = 0.5


@dataclass
class SimulatedFleet:
    """A front with its engines. `life_s`: mean time until an engine dies, None for never."""

    router: Router
    models: dict[str, str]
    """The model of each engine, by the engine's name."""
    new_engine: Callable[[], SimulatedEngine]
    in_flight: int = IN_FLIGHT
    life_s: float | None = None
    seed: int = 0
    now: float = 0.0
    decisions_s: list[float] = field(default_factory=list)
    """Processor time of each choice of an engine."""
    deaths: int = 0
    _events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = field(
        default_factory=list
    )
    _numbers: Iterable[int] = field(default_factory=itertools.count)
    _engines: dict[str, SimulatedEngine] = field(default_factory=dict)
    _woken: dict[str, float] = field(default_factory=dict)
    """When each engine is to be woken next."""
    _waiting: WaitingRoom = field(default_factory=lambda: WaitingRoom(lambda name: Share()))
    _tickets: dict[str, Ticket] = field(default_factory=dict)
    _where: dict[str, str] = field(default_factory=dict)
    _heard: dict[str, float] = field(default_factory=dict)
    _alive: dict[str, SimulatedJob] = field(default_factory=dict)
    _arriving: int = 0

    def run(self, jobs: Iterable[SimulatedJob]) -> list[SimulatedJob]:
        """Run all jobs to their ends, and return them."""
        self._lives = {name: random.Random(f"{self.seed} {name}") for name in self.models}
        self._served = {
            model: ServedModel(name=model, info=model_info(model)) for model in self.models.values()
        }
        jobs = list(jobs)
        self._arriving = len(jobs)
        for name in self.models:
            self._rise(name)
        for job in jobs:
            self._at(job.arrives, self._arrive, job)
        while self._events and (self._alive or self._arriving):
            self.now, _, do, what = heapq.heappop(self._events)
            do(*what)
        return jobs

    def _at(self, when: float, do: Callable[..., None], *what: Any) -> None:
        heapq.heappush(self._events, (when, next(iter(self._numbers)), do, what))

    # -- engines

    def _rise(self, name: str) -> None:
        """The engine is there, with nothing."""
        engine = self._engines[name] = self.new_engine()
        self.router.add(name, self.models[name], most=self.in_flight, state="ready")
        self.router.learn(name, engine.costs)
        if self.life_s is not None:
            self._at(self.now + self._lives[name].expovariate(1 / self.life_s), self._die, name)
        self._pump()

    def _die(self, name: str) -> None:
        """The engine is gone, and what it had waits again."""
        self.deaths += 1
        engine = self._engines.pop(name)
        self.router.remove(name)
        for job in [self._alive[id] for id, at in self._where.items() if at == name]:
            del self._where[job.req.id]
            self._outlive(job, engine)
        self._at(self.now + DOWN_S, self._rise, name)
        self._pump()

    def _outlive(self, job: SimulatedJob, engine: SimulatedEngine) -> None:
        ticket = self._tickets[job.req.id]
        self._waiting.came_out(ticket)
        ticket.begun = engine.begun(job.req.id)
        if ticket.outlived(EngineDied("died")) is not None:
            self._end(job, "failed")
            return
        ticket.come_back()
        job.done = 0
        self._wait(ticket)

    def _wake(self, name: str, at: float) -> None:
        if self._woken.get(name) == at and name in self._engines:
            self._run(name)

    def _run(self, name: str) -> None:
        engine = self._engines[name]
        done, late = engine.run(self.now)
        for job_id, how in [*((id, "done") for id in done), *((id, "late") for id in late)]:
            self._end(self._alive[job_id], how)
        self._hear(name)
        if (at := engine.wake_at()) is not None:
            self._woken[name] = max(at, self.now)
            self._at(self._woken[name], self._wake, name, self._woken[name])
        if done or late:
            self._pump()

    def _hear(self, name: str) -> None:
        """Tell now and then how far the requests in the engine are."""
        if self.now < self._heard.get(name, 0.0) + HEARD_EVERY_S:
            return
        self._heard[name] = self.now
        for job_id in self.router.flying(name):
            job, ticket = self._alive[job_id], self._tickets[job_id]
            if not job.done:
                continue
            self.router.progressed(job_id, max(0, job.kind.steps - job.done), self.now)
            suspected = ticket.suspect
            ticket.update(Update(job_id, job.done, job.kind.steps, 0, None, None), self.now)
            if suspected and not ticket.suspect:
                self.router.cleared(job_id)
                self._at(self.now, self._pump)

    # -- jobs

    def _arrive(self, job: SimulatedJob) -> None:
        self._arriving -= 1
        self._alive[job.req.id] = job
        if job.cancelled_at is not None:
            self._at(job.cancelled_at, self._cancel, job)
        if job.deadline is not None:
            self._at(job.deadline, self._expire, job)
        ticket = self._tickets[job.req.id] = Ticket(
            req=job.req,
            pictures=(),
            model=self._served[job.kind.model],
            owner=Owner(),
            number=next(iter(self._numbers)),
            tell=lambda event: None,
            born=job.arrives,
        )
        self._waiting.enter(ticket)
        self._wait(ticket)
        self._pump()

    def _wait(self, ticket: Ticket) -> None:
        ticket.line = self.router.line(self._routed(ticket))
        self._waiting.add(ticket)

    def _routed(self, ticket: Ticket) -> RoutedRequest:
        assert ticket.model.info is not None
        return RoutedRequest.of(
            ticket.req, ticket.model.info, deadline=ticket.deadline, suspect=ticket.suspect
        )

    def _pump(self) -> None:
        """Send what can be sent."""
        for model in self._waiting.models:
            while any(map(self._send, self._firsts(model))):
                pass

    def _firsts(self, model: ServedModel) -> list[Ticket]:
        suspect = self._waiting.suspect(model)
        return [*([] if suspect is None else [suspect]), *self._waiting.firsts(model)]

    def _send(self, ticket: Ticket) -> bool:
        request = self._routed(ticket)
        began = time.thread_time()
        name = self.router.choose(request, self.now)
        self.decisions_s.append(time.thread_time() - began)
        if name is None:
            return False
        job = self._alive[request.id]
        self._waiting.discard(ticket)
        self._waiting.sent(ticket)
        self.router.sent(request, name, self.now)
        self._where[job.req.id] = name
        try:
            self._engines[name].submit(job, self.now)
        except DeadlineExceeded:
            self._end(job, "refused")
        self._at(self.now, self._run_if_there, name)
        return True

    def _cancel(self, job: SimulatedJob) -> None:
        if not job.ends:
            self._leave(job)
            self._end(job, "cancelled")
            self._pump()

    def _expire(self, job: SimulatedJob) -> None:
        if not job.ends and job.req.id not in self._where:
            self._end(job, "late")

    def _leave(self, job: SimulatedJob) -> None:
        if (name := self._where.get(job.req.id)) is not None:
            self._engines[name].leave(job.req.id)
            self._at(self.now, self._run_if_there, name)

    def _run_if_there(self, name: str) -> None:
        if name in self._engines:
            self._run(name)

    def _end(self, job: SimulatedJob, how: str) -> None:
        job.ends.append((self.now, how))
        del self._alive[job.req.id]
        ticket = self._tickets.pop(job.req.id)
        self._waiting.discard(ticket)
        self._waiting.leave(ticket)
        if self._where.pop(job.req.id, None) is not None:
            self._waiting.came_out(ticket)
        self.router.ended(job.req.id)
