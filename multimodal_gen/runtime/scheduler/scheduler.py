"""The Scheduler: turns client requests into numbered Plans, one ahead of the device.

Its thread owns the socket to the ranks. The policy decides; a lock lets the gateway's thread add
and remove requests between two decisions.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec
import zmq

from multimodal_gen.checkpoints.upscaler.folder import UpscalerFolder
from multimodal_gen.errors import (
    Cancelled,
    EngineDied,
    EngineNotReady,
    OutOfMemory,
)
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.messages.plan import (
    Ack,
    AdapterRead,
    Plan,
    RankLoaded,
    RankMessage,
    RankStarted,
    Runner,
    RunnerReady,
    Work,
)
from multimodal_gen.messages.reply import EngineHealth, RankMemory, RequestProgress, WireError
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.wakeup import Wakeup
from multimodal_gen.runtime.scheduler.adapter_cache import AdapterCache
from multimodal_gen.runtime.scheduler.client_gateway import ClientGateway
from multimodal_gen.runtime.scheduler.cost_bulletin import CostBulletin
from multimodal_gen.runtime.scheduler.issued_plans import AGREE_S, IssuedPlan, IssuedPlans
from multimodal_gen.runtime.scheduler.live_requests import LiveRequests
from multimodal_gen.runtime.scheduler.loading_ranks import LoadingRanks
from multimodal_gen.runtime.scheduler.rank_links import RankLinks
from multimodal_gen.scheduling.cost_model import CostModel
from multimodal_gen.scheduling.policy import Policy
from multimodal_gen.scheduling.working_memory import within_memory

log = logging.getLogger(__name__)
IDLE_S = 1.0
"""Maximum wait when nothing is due."""


class Scheduler:
    """Decides on one thread (`run`); `submit`, `cancel` and the like are called by the
    gateway's."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        links: RankLinks,
        gateway: ClientGateway,
        step_timeout: float,
        make_policy: Callable[[RankLoaded], tuple[Policy, CostModel]],
        adapters: AdapterCache,
        upscalers: UpscalerFolder | None = None,
    ) -> None:
        self._links = links
        self._gateway = gateway
        self._make_policy = make_policy
        self._adapters = adapters
        self._upscalers = upscalers
        self._policy: Policy
        self._cost: CostModel
        self._cost_kept = True
        self._bulletin = CostBulletin(gateway.publish)
        self._lock = threading.RLock()
        self._issued = IssuedPlans(links.size, step_timeout)
        self._ready: defaultdict[Runner, set[int]] = defaultdict(set)
        self._memory: dict[int, RankMemory] = {}
        self._resume = False
        self._stopping = False
        self._wakeup = Wakeup(context, "scheduler")
        self._live = LiveRequests(gateway, adapters, self._wakeup.ring)
        self._poller = zmq.Poller()
        self._poller.register(links.socket, zmq.POLLIN)
        self._poller.register(links.monitor, zmq.POLLIN)
        self._poller.register(self._wakeup.socket, zmq.POLLIN)
        self._thread = threading.Thread(target=self._guarded_run, name="scheduler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    # -- the gateway's thread

    def submit(self, req: Req, pictures: Sequence[list[zmq.Frame]] = ()) -> None:
        """Queue a request.

        Raises QueueFull, DeadlineExceeded, EngineNotReady, and InvalidRequest for a LoRA, a
        control or an upscaler that does not exist.
        """
        if self._upscalers is not None and req.params.upscale and req.params.upscale.model:
            self._upscalers.find(req.params.upscale.model)
        adapters = self._adapters.find(req.params)  # It reads folders, so not under the lock.
        with self._lock:
            if self._stopping:
                raise EngineNotReady("the engine is stopping")
            if self._live.submit(req, pictures, adapters):
                self._wakeup.ring()

    def cancel(self, request_id: str) -> None:
        """End a request at once; its memory is freed by the next plan."""
        with self._lock:
            self._live.end(request_id, Cancelled("the request was cancelled"))

    def health(self) -> EngineHealth:
        with self._lock:
            memory = tuple(self._memory[rank] for rank in sorted(self._memory))
            return EngineHealth(
                running=self._policy.running, waiting=self._policy.waiting, memory=memory
            )

    def progress_of(self, request_id: str) -> RequestProgress | None:
        with self._lock:
            return self._live.progress(request_id)

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
            self._learn_from_loss()
            self._die(error)
        except Exception as error:
            log.exception("the scheduler failed")
            self._die(EngineDied(f"the scheduler failed: {type(error).__name__}: {error}"))

    def _run(self) -> None:
        self._load()
        while not self._stopping:
            self._wait()
            with self._lock:
                self._live.end_expired()
                self._issued.check_silence(time.monotonic())
                self._dispatch()
        with self._lock:
            self._live.end_all(Cancelled("the engine was stopped"))
        self._links.send(Plan(number=self._issued.next_number, shutdown=True))
        self._gateway.close()
        self._cost.save()

    def _load(self) -> None:
        loaded = LoadingRanks(self._links, self._gateway).wait()
        self._memory = {told.rank: told.memory for told in loaded if told.memory is not None}
        smallest = min(message.memory_bytes for message in loaded)
        first = msgspec.structs.replace(loaded[0], memory_bytes=smallest)
        assert first.model is not None
        model = within_memory(first.model, first.parameters, smallest)
        self._policy, self._cost = self._make_policy(first)
        self._live.policy = self._policy
        self._adapters.most_bytes = min(message.adapter_bytes for message in loaded)
        self._adapters.of_model = model.controls
        self._bulletin.renew(self._policy, self._cost, at_once=True)
        self._gateway.open(self, self._links.size, model)

    def _wait(self) -> None:
        patience = min(self._patience(), self._links.patience)
        ready = dict(self._poller.poll(math.ceil(patience * 1000)))
        if self._wakeup.socket in ready:
            self._wakeup.clear()
        self._links.check()
        while self._links.socket.poll(0):
            if (received := self._links.receive()) is not None:
                with self._lock:
                    self._take(*received)

    def _patience(self) -> float:
        """Seconds until something is due even if no message arrives."""
        with self._lock:
            if self._issued.failed:
                return AGREE_S / 20
            if self._policy.wake_at is not None:
                return max(0.0, self._policy.wake_at - time.monotonic())
            return IDLE_S / 4 if self._live else IDLE_S

    def _dispatch(self) -> None:
        """Keep the ranks busy: one plan running and, shortly before its end, a second one."""
        for request_id in self._adapters.take_ready():
            self._policy.release(request_id)
        while (work := self._policy.next(time.monotonic())) is not None or self._due:
            self._issue(work)
        if not self._issued and not self._cost_kept:
            self._cost.save()
            self._cost_kept = True
            self._bulletin.renew(self._policy, self._cost, at_once=True)

    @property
    def _due(self) -> bool:
        """True if the ranks need a message even without work."""
        return self._live.has_drops or self._adapters.has_orders

    def _issue(self, work: Work | None) -> None:
        now = time.monotonic()
        admit, pictures = self._live.admissions(work, now) if work else ((), [])
        unload, load = self._adapters.orders()
        plan = Plan(
            number=self._issued.next_number,
            admit=admit,
            drop=self._live.take_drops(),
            unload=unload,
            load=load,
            adapters={
                req.id: numbers for req in admit if (numbers := self._adapters.numbers(req.id))
            },
            work=work,
            # Work decided before the error was known must be skipped first.
            resume=self._resume and not self._issued.have_work,
        )
        if plan.resume:
            self._resume = False
        records = self._live.records(work.ids) if work else {}
        self._issued.add(plan, records, now)
        self._links.send(plan, pictures)

    # -- replies of the ranks

    def _take(self, ack: RankMessage, bodies: list[list[zmq.Frame]]) -> None:
        if isinstance(ack, RankStarted | RankLoaded | LoadingProgress):
            raise EngineDied(f"rank {ack.rank} loaded its model twice")
        if isinstance(ack, AdapterRead):
            for request_id, error in self._adapters.reported(ack).items():
                self._live.end(request_id, error.exception())
            return
        if isinstance(ack, RunnerReady):
            self._ready[ack.runner].add(ack.rank)
            if len(self._ready[ack.runner]) == self._links.size:
                self._policy.use(ack.runner)
            return
        if ack.memory is not None:
            self._memory[ack.rank] = ack.memory
        self._issued.acknowledge(ack, bodies, time.monotonic())
        while (issued := self._issued.finished) is not None:
            now = time.monotonic()
            self._finish(issued, now)
            self._issued.remove_first(now)

    def _finish(self, issued: IssuedPlan, now: float) -> None:
        """Book a plan that every rank has acknowledged, and send results and progress to
        clients."""
        if issued.plan.work is None:
            return
        error, acks = issued.error(), issued.answers
        work = issued.plan.work
        if acks[0].skipped:
            self._policy.completed(work, advanced=0, seconds=0.0, prepared={}, now=now)
            return
        seconds = max(ack.seconds for ack in acks)
        for record in issued.records.values():
            record.book(work, acks[0], seconds)
        if error is not None:
            self._recover(work, acks[0], error, now)
        else:
            self._policy.completed(
                work,
                advanced=acks[0].advanced,
                seconds=seconds,
                prepared=acks[0].prepared,
                now=now,
                enhanced=acks[0].enhanced,
                peak_bytes=max(ack.peak_bytes for ack in acks),
            )
            self._cost_kept = False
            self._bulletin.renew(self._policy, self._cost)
        self._live.report(work, issued, acks, now)

    def _recover(self, work: Work, ack: Ack, error: WireError, now: float) -> None:
        """All ranks failed alike: a request that failed alone ends, others are retried
        separately."""
        self._resume = True
        out_of_memory = error.code == OutOfMemory.code
        for request_id in self._policy.failed(
            work, advanced=ack.advanced, out_of_memory=out_of_memory, now=now
        ):
            self._live.end(request_id, error.exception())

    # -- ends

    def _learn_from_loss(self) -> None:
        """If a rank ran out of memory while others were inside the step, let the next engine make
        smaller batches. A request that was alone ends with that error, and is not tried again."""
        with self._lock:
            issued = self._issued.first
            if issued is None or issued.plan.work is None:
                return
            if (error := issued.out_of_memory) is None:
                return
            for request_id in self._policy.failed(
                issued.plan.work, advanced=0, out_of_memory=True, now=time.monotonic()
            ):
                self._live.end(request_id, error.exception())
            self._cost.save()

    def _die(self, error: EngineDied) -> None:
        """End everything in flight, and this process: the ranks notice, and end too. Called without
        the lock, because the gateway may be waiting for it."""
        log.error("the engine is shutting down after an error: %s", error.message)
        with self._lock:
            self._stopping = True
            self._live.end_all(error)
        self._gateway.refuse(error)
        self._gateway.close()
        os._exit(70)
