"""Rank 0's Scheduler: turns what clients want into numbered Plans, one ahead of the device.

Its thread owns the socket to the ranks. The policy decides; a lock lets the gateway's thread put
requests in and take them out between two decisions.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import zmq

from multimodal_gen.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineDied,
    EngineNotReady,
    MultimodalGenError,
    OutOfMemory,
)
from multimodal_gen.messages.codec import header_of
from multimodal_gen.messages.plan import Ack, LoraRead, Phase, Plan, RankLoaded, Work
from multimodal_gen.messages.reply import EngineHealth, Failed, RequestProgress, Result, WireError
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.wakeup import Wakeup
from multimodal_gen.runtime.managers.client_gateway import ClientGateway
from multimodal_gen.runtime.managers.lora_cache import LoraCache
from multimodal_gen.runtime.managers.rank_links import RankLinks
from multimodal_gen.scheduling.cost_model import CostModel
from multimodal_gen.scheduling.policy import Policy

log = logging.getLogger(__name__)
IDLE_S = 1.0
"""How long to wait when nothing is due."""
AGREE_S = 1.0
"""After one rank reports an error inside a step, how long the others have to report the same."""
PROGRESS_S = 0.1
"""The least time between two progress messages of one request."""


@dataclass
class Ledger:
    """What a result tells of how it was made."""

    req: Req
    accepted: float
    pictures: Sequence[Any] = ()
    """Until they are on their way to the ranks."""
    admitted: bool = False
    timings: dict[str, float] = field(default_factory=dict)
    batch_sizes: list[int] = field(default_factory=list)
    evaluations: int = 0
    told: float = 0.0


@dataclass
class InFlight:
    """A plan on its way through the ranks."""

    plan: Plan
    began: float
    ledgers: dict[str, Ledger]
    """Of whom it works for. One who was cancelled may be followed by another of the same id."""
    acks: dict[int, Ack] = field(default_factory=dict)
    arrays: list[Any] = field(default_factory=list)
    failed_at: float | None = None


class Scheduler:
    """Decides on one thread (`run`); `submit`, `cancel` and the like come from the gateway's."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        links: RankLinks,
        gateway: ClientGateway,
        step_timeout: float,
        make_policy: Callable[[RankLoaded], tuple[Policy, CostModel]],
        loras: LoraCache,
    ) -> None:
        self._links = links
        self._gateway = gateway
        self._step_timeout = step_timeout
        self._make_policy = make_policy
        self._loras = loras
        self._policy: Policy
        self._cost: CostModel
        self._cost_kept = True
        self._lock = threading.RLock()
        self._requests: dict[str, Ledger] = {}
        self._drops: list[str] = []
        self._in_flight: deque[InFlight] = deque()
        self._next_number = 0
        self._resume = False
        self._stopping = False
        self._wakeup = Wakeup(context, "scheduler")
        self._poller = zmq.Poller()
        self._poller.register(links.socket, zmq.POLLIN)
        self._poller.register(self._wakeup.socket, zmq.POLLIN)
        self._thread = threading.Thread(target=self._guarded_run, name="scheduler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    # -- the gateway's thread

    def submit(self, req: Req, pictures: Sequence[Any] = ()) -> None:
        """Take a request into the queue.

        Raises QueueFull, DeadlineExceeded, EngineNotReady, and InvalidRequest for a LoRA that isn't
        there.
        """
        loras = self._loras.find(req.params.lora)
        with self._lock:
            if self._stopping:
                raise EngineNotReady("the engine is stopping")
            now = time.monotonic()
            if self._policy.submit(req, now, held=bool(loras)):
                self._requests[req.id] = Ledger(req, now, pictures)
                if loras:
                    self._loras.wait(req.id, loras)
                self._wakeup.ring()

    def cancel(self, request_id: str) -> None:
        """End a request at once; its memory goes with the next plan."""
        with self._lock:
            self._end(request_id, Cancelled("the request was cancelled"))

    def health(self) -> EngineHealth:
        with self._lock:
            return EngineHealth(running=self._policy.running, waiting=self._policy.waiting)

    def progress_of(self, request_id: str) -> RequestProgress | None:
        with self._lock:
            return self._progress(request_id) if request_id in self._requests else None

    def stop(self) -> None:
        """Cancel everything and shut the ranks down."""
        with self._lock:
            self._stopping = True
        self._wakeup.ring()

    # -- the Scheduler's thread

    def _guarded_run(self) -> None:
        try:
            self._run()
        except EngineDied as error:
            self._die(error)
        except Exception as error:
            log.exception("the scheduler failed")
            self._die(EngineDied(f"the scheduler failed: {type(error).__name__}: {error}"))

    def _run(self) -> None:
        self._load()
        while not self._stopping:
            self._wait()
            with self._lock:
                self._end_expired()
                self._check_silence()
                self._dispatch()
        self._end_all(Cancelled("the engine was told to stop"))
        self._send(Plan(number=self._next_number, shutdown=True))
        self._gateway.close()
        self._cost.save()

    def _load(self) -> None:
        """Wait until every rank has its model, or has said why not."""
        loaded: dict[int, RankLoaded] = {}
        while len(loaded) < self._links.size:
            if self._gateway.shutdown_asked:
                self._gateway.close()
                os._exit(0)
            if not self._links.socket.poll(200):
                continue
            message, _ = self._links.receive()
            assert isinstance(message, RankLoaded)
            if message.error is not None:
                self._gateway.refuse(message.error.exception())
                self._gateway.close()
                os._exit(3)
            loaded[message.rank] = message
        first = loaded[0]
        assert first.model is not None
        self._policy, self._cost = self._make_policy(first)
        self._gateway.open(self, self._links.size, first.model)

    def _wait(self) -> None:
        ready = dict(self._poller.poll(math.ceil(self._patience() * 1000)))
        if self._wakeup.socket in ready:
            self._wakeup.clear()
        while self._links.socket.poll(0):
            message, arrays = self._links.receive()
            with self._lock:
                self._take(message, arrays)

    def _patience(self) -> float:
        """Seconds until something is due even if nobody calls."""
        with self._lock:
            if any(flight.failed_at for flight in self._in_flight):
                return AGREE_S / 20
            if self._policy.wake_at is not None:
                return max(0.0, self._policy.wake_at - time.monotonic())
            return IDLE_S / 4 if self._requests else IDLE_S

    def _dispatch(self) -> None:
        """Keep the ranks busy: one plan running and, shortly before it ends, one more."""
        for request_id in self._loras.take_ready():
            self._policy.release(request_id)
        while (work := self._policy.next(time.monotonic())) is not None or self._due:
            self._issue(work)
        if not self._in_flight and not self._cost_kept:
            self._cost.save()
            self._cost_kept = True

    @property
    def _due(self) -> bool:
        """Something has to be told to the ranks even if there is no work."""
        return bool(self._drops) or self._loras.has_orders

    def _issue(self, work: Work | None) -> None:
        now = time.monotonic()
        admit, pictures = self._admissions(work, now) if work else ((), [])
        unload, load = self._loras.orders()
        plan = Plan(
            number=self._next_number,
            admit=admit,
            drop=tuple(self._drops),
            unload=unload,
            load=load,
            loras={req.id: self._loras.numbers(req.id) for req in admit if req.params.lora},
            work=work,
            # What was decided before the error was known has to be skipped first.
            resume=self._resume and not any(flight.plan.work for flight in self._in_flight),
        )
        if plan.resume:
            self._resume = False
        self._drops.clear()
        ledgers = {key: self._requests[key] for key in work.ids} if work else {}
        self._in_flight.append(InFlight(plan, now, ledgers))
        self._send(plan, pictures)

    def _admissions(self, work: Work, now: float) -> tuple[tuple[Req, ...], list[Any]]:
        """Who is new to the ranks, and the pictures that go along."""
        admitted: list[Req] = []
        pictures: list[Any] = []
        for request_id in work.ids:
            ledger = self._requests[request_id]
            if not ledger.admitted:
                ledger.admitted = True
                ledger.timings["queued"] = now - ledger.accepted
                admitted.append(ledger.req)
                pictures += ledger.pictures
                ledger.pictures = ()
        return tuple(admitted), pictures

    def _send(self, plan: Plan, pictures: Sequence[Any] = ()) -> None:
        self._next_number = plan.number + 1
        self._links.send(plan, pictures)

    # -- what the ranks answer

    def _take(self, ack: Ack | RankLoaded | LoraRead, arrays: list[Any]) -> None:
        if isinstance(ack, RankLoaded):
            raise EngineDied(f"rank {ack.rank} loaded its model twice")
        if isinstance(ack, LoraRead):
            for request_id, error in self._loras.reported(ack).items():
                self._end(request_id, error.exception())
            return
        flight = next((f for f in self._in_flight if f.plan.number == ack.number), None)
        if flight is None:
            raise EngineDied(f"rank {ack.rank} acknowledged plan {ack.number}, which is not due")
        flight.acks[ack.rank] = ack
        flight.arrays = flight.arrays or arrays
        if ack.error is not None and flight.failed_at is None:
            flight.failed_at = time.monotonic()
        while self._in_flight and len(self._in_flight[0].acks) == self._links.size:
            self._finish(self._in_flight.popleft())

    def _finish(self, flight: InFlight) -> None:
        """Every rank has acknowledged: book what was done and tell the clients."""
        now = time.monotonic()
        if self._in_flight:
            self._in_flight[0].began = now
        if flight.plan.work is None:
            return
        acks = [flight.acks[rank] for rank in range(self._links.size)]
        errors = [ack.error for ack in acks if ack.error is not None]
        if errors and (len(errors) < len(acks) or len({ack.advanced for ack in acks}) > 1):
            raise EngineDied(f"a rank failed inside a step: {errors[0].message}")
        work = flight.plan.work
        if acks[0].skipped:
            self._policy.completed(work, advanced=0, seconds=0.0, prepared={}, now=now)
            return
        self._book(work, flight.ledgers.values(), acks)
        if errors:
            self._recover(work, acks[0], errors[0], now)
        else:
            self._policy.completed(
                work,
                advanced=acks[0].advanced,
                seconds=max(ack.seconds for ack in acks),
                prepared=acks[0].prepared,
                now=now,
            )
            self._cost_kept = False
        self._report(work, flight, acks, now)

    def _recover(self, work: Work, ack: Ack, error: WireError, now: float) -> None:
        """All ranks failed alike: whoever failed alone ends, the others are tried again apart."""
        self._resume = True
        out_of_memory = error.code == OutOfMemory.code
        for request_id in self._policy.failed(
            work, advanced=ack.advanced, out_of_memory=out_of_memory, now=now
        ):
            self._end(request_id, error.exception())

    def _book(self, work: Work, ledgers: Iterable[Ledger], acks: Sequence[Ack]) -> None:
        seconds = max(ack.seconds for ack in acks)
        for ledger in ledgers:
            if (prepared := acks[0].prepared.get(ledger.req.id)) is not None:
                ledger.evaluations = prepared.evaluations
            spent = ledger.timings.get(work.phase.value, 0.0)
            ledger.timings[work.phase.value] = spent + seconds
            if work.phase is Phase.DENOISE:
                ledger.batch_sizes += [len(work.ids)] * acks[0].advanced

    def _report(self, work: Work, flight: InFlight, acks: Sequence[Ack], now: float) -> None:
        failures = {key: failure for ack in acks for key, failure in ack.failures.items()}
        finished = dict(zip(acks[0].finished, flight.arrays, strict=False))
        previews = dict(zip(acks[0].previewed, flight.arrays, strict=False))
        for request_id, ledger in flight.ledgers.items():
            if self._requests.get(request_id) is not ledger:
                continue
            if request_id in failures:
                self._end(request_id, failures[request_id].exception())
            elif request_id in finished:
                self._deliver(request_id, finished[request_id], now)
            elif work.phase is Phase.DENOISE:
                self._tell(request_id, previews.get(request_id), now)

    def _deliver(self, request_id: str, pixels: Any, now: float) -> None:
        ledger = self._forget(request_id)
        params = ledger.req.params
        assert params.seed is not None
        ledger.timings["total"] = now - ledger.accepted
        result = Result(
            id=request_id,
            seed=params.seed,
            fps=params.fps,
            timings=ledger.timings,
            batch_sizes=ledger.batch_sizes,
            frames=(header_of(pixels),),
        )
        self._gateway.send(request_id, result, [pixels])

    def _tell(self, request_id: str, preview: Any, now: float) -> None:
        ledger = self._requests[request_id]
        last = len(ledger.batch_sizes) == ledger.evaluations
        if preview is None and not last and now - ledger.told < PROGRESS_S:
            return
        ledger.told = now
        progress = self._progress(request_id)
        if preview is None:
            self._gateway.send(request_id, progress)
        else:
            shown = msgspec.structs.replace(progress, frames=(header_of(preview),))
            self._gateway.send(request_id, shown, [preview])

    def _progress(self, request_id: str) -> RequestProgress:
        step, total, position, eta = self._policy.progress(request_id, time.monotonic())
        return RequestProgress(
            id=request_id, step=step, total=total, queue_position=position, eta_s=eta
        )

    # -- ends

    def _end(self, request_id: str, error: MultimodalGenError) -> None:
        """End a request by an error; without effect when it has ended before."""
        if request_id in self._requests:
            self._forget(request_id)
            self._gateway.send(request_id, Failed(request_id, WireError.of(error)))

    def _forget(self, request_id: str) -> Ledger:
        ledger = self._requests.pop(request_id)
        self._policy.remove(request_id)
        self._loras.leave(request_id)
        if ledger.admitted:
            self._drops.append(request_id)
            self._wakeup.ring()
        return ledger

    def _end_expired(self) -> None:
        for request_id in self._policy.expired(time.monotonic()):
            deadline = self._requests[request_id].req.params.deadline_s
            self._end(request_id, DeadlineExceeded(f"not finished within deadline_s={deadline:g}"))

    def _check_silence(self) -> None:
        """Raises EngineDied when the plan that is due has been waited for too long: since it became
        due or, if a rank failed in it, since the others could have said the same."""
        if not self._in_flight:
            return
        due, now = self._in_flight[0], time.monotonic()
        failed_at = due.failed_at
        if failed_at is not None and now - max(failed_at, due.began) > AGREE_S:
            error = next(ack.error for ack in due.acks.values() if ack.error is not None)
            ranks = sorted(due.acks)
            raise EngineDied(f"only rank {ranks} answered a step, with an error: {error.message}")
        if now - due.began > self._step_timeout:
            silent = sorted(set(range(self._links.size)) - set(due.acks))
            raise EngineDied(f"rank {silent} fell silent for {self._step_timeout:g} s")

    def _die(self, error: EngineDied) -> None:
        """The group is lost: everything in flight ends, and this process with it. The front
        sees that and ends the other ranks. Without the lock: the gateway may wait for it."""
        log.error("the engine dies: %s", error.message)
        self._end_all(error)
        self._gateway.close()
        os._exit(70)

    def _end_all(self, error: MultimodalGenError) -> None:
        with self._lock:
            self._stopping = True
            for request_id in list(self._requests):
                self._end(request_id, error)
