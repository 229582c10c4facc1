"""The Scheduler of one rank: receives numbered plans, lets the worker carry them out in order, and
acknowledges each when the device is done."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import zmq

from multimodal_gen.errors import ProtocolError
from multimodal_gen.messages.codec import MAX_CLIENT_FRAME_BYTES, Decoder, encode
from multimodal_gen.messages.links import PROBE, beat, keys_for, unlock
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.messages.plan import (
    AdapterRead,
    Phase,
    Plan,
    RankLoaded,
    RankStarted,
    RunnerReady,
)
from multimodal_gen.messages.rank_args import SCHEDULER_LOST, RankArgs, socket_name

if TYPE_CHECKING:  # imports torch, which must not delay the sockets
    from multimodal_gen.runtime.distributed.link_store import LinkStore
    from multimodal_gen.runtime.managers.gpu_worker import GPUWorker
    from multimodal_gen.runtime.managers.plan_outcome import PlanOutcome

log = logging.getLogger(__name__)
GRACE_S = 3.0
"""Time to end by itself for a rank that was told to."""


class RankScheduler:
    """The same on every rank.

    Separate threads receive plans and send replies, so that nothing but the work itself lies
    between two plans: the next one is ready when the last one ends, and starts while the last reply
    is still being sent; on a GPU, while the last plan still runs. One more ends the process when it
    loses the engine's Scheduler, whatever the others are at.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], args: RankArgs) -> None:
        """Connect, and say so."""
        self._plans = _connect(context, args, "")
        self._answers = _connect(context, args, "answers")
        self._open_store = partial(_connect, context, args, "store")
        self._rank = args.rank
        self._received: SimpleQueue[tuple[Plan, list[Any]] | None] = SimpleQueue()
        self._begun: SimpleQueue[PlanOutcome | AdapterRead | RunnerReady | None] = SimpleQueue()
        self._unsaid: PlanOutcome | None = None
        """The last plan's, until the next one computes: the threads would wait for each other."""
        self._told_to_end = threading.Event()
        monitors = [_monitor(link) for link in (self._plans, self._answers)]
        threading.Thread(target=self._watch, args=(monitors,), daemon=True).start()
        self.report(RankStarted(rank=args.rank))

    def report(self, news: RankStarted | RankLoaded | LoadingProgress) -> None:
        """Report how far the model is loaded, that it is, or why not."""
        self._plans.send_multipart(encode(news))

    def store(self) -> LinkStore:
        """Open the store in which the ranks meet."""
        from multimodal_gen.runtime.distributed.link_store import LinkStore

        # Kept here, since torch's reference to it does not keep what is Python alive.
        self._store = LinkStore(self._open_store(), self._rank)
        return self._store

    def run(self, worker: GPUWorker) -> None:
        """Carry out plans until a shutdown."""
        threading.Thread(target=_or_end, args=(self._receive,), daemon=True).start()
        if worker.adapters is not None:
            worker.adapters.start(self._begun.put)
        answering = threading.Thread(target=_or_end, args=(self._answer,), daemon=True)
        answering.start()
        if worker.captures:
            self._begun.put(RunnerReady(rank=self._rank, runner="captured"))
        if worker.graphs is not None:
            worker.graphs.start(partial(self._received.put, None), self._begun.put)
        worker.pipeline.when_evaluating = self._hand_over
        while True:
            if self._received.empty():
                self._hand_over()
            if (received := self._received.get()) is not None:
                plan, pictures = received
                if not _evaluates(plan):
                    self._hand_over()
                if plan.shutdown:
                    break
                outcome = worker.execute(plan, pictures)
                self._hand_over()
                self._unsaid = outcome
                if not _evaluates(plan):
                    self._hand_over()
            if worker.graphs is not None and not worker.graphs.is_over:
                self._hand_over()
                worker.graphs.advance(in_use=worker.uses_compiled)
        self._begun.put(None)
        answering.join()

    def _hand_over(self) -> None:
        """Let the other thread acknowledge the last plan, if it has not yet."""
        if self._unsaid is not None:
            self._begun.put(self._unsaid)
            self._unsaid = None

    def _receive(self) -> None:
        decoder, expected = Decoder(Plan), 0
        while not self._told_to_end.is_set():
            frames = self._plans.recv_multipart()
            if frames == [PROBE]:
                continue
            plan, pictures = decoder.decode(frames)
            assert isinstance(plan, Plan)
            if plan.number != expected:
                raise ProtocolError(f"received plan {plan.number}, expected {expected}")
            expected += 1
            if plan.shutdown:
                self._told_to_end.set()
            self._received.put((plan, pictures))
        self._plans.close()

    def _answer(self) -> None:
        while (outcome := self._begun.get()) is not None:
            if isinstance(outcome, AdapterRead | RunnerReady):
                self._answers.send_multipart(encode(outcome))
                continue
            ack, arrays = outcome.ack()
            self._answers.send_multipart(encode(ack, arrays), copy=not arrays)
        self._answers.close()

    def _watch(self, monitors: list[zmq.Socket[bytes]]) -> None:
        poller = zmq.Poller()
        for monitor in monitors:
            poller.register(monitor, zmq.POLLIN)
        poller.poll()
        if self._told_to_end.is_set():
            time.sleep(GRACE_S)
        log.info("lost the scheduler")
        os._exit(SCHEDULER_LOST)


def _evaluates(plan: Plan) -> bool:
    return plan.work is not None and plan.work.phase is Phase.DENOISE


def _or_end(run: Callable[[], None]) -> None:
    """End the process on an error: a rank that misses a plan or can't reply would block the
    others."""
    try:
        run()
    except Exception:
        log.exception("fatal error in this rank")
        os._exit(1)


def _connect(
    context: zmq.Context[zmq.Socket[bytes]], args: RankArgs, use: str
) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, socket_name(args.rank, use, args.token))
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_CLIENT_FRAME_BYTES)
    socket.linger = 500
    beat(socket)
    if (keys := keys_for(args.ranks_address, args.keys)) is not None:
        unlock(socket, keys)
    _monitor(socket)  # from before the connection on
    socket.connect(args.ranks_address)
    return socket


def _monitor(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """The socket that tells of a lost connection, always the same one."""
    return socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
