"""The Scheduler of one rank: receives numbered plans, lets the worker carry them out in order, and
acknowledges each when the device is done."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import zmq

from multimodal_gen.errors import ProtocolError
from multimodal_gen.messages.codec import MAX_CLIENT_FRAME_BYTES, Decoder, encode
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.messages.plan import LoraRead, Plan, RankLoaded
from multimodal_gen.runtime.managers.rank_links import socket_name

if TYPE_CHECKING:  # imports torch, which must not delay rank 0's socket
    from multimodal_gen.runtime.distributed.link_store import LinkStore
    from multimodal_gen.runtime.managers.gpu_worker import GPUWorker, PlanOutcome

log = logging.getLogger(__name__)


class RankScheduler:
    """The same on every rank, including rank 0.

    Separate threads receive plans and send replies, so that nothing but the work itself lies
    between two plans: the next one is ready when the last one ends, and starts while the last reply
    is still being sent; on a GPU, while the last plan still runs.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], address: str, rank: int, token: str
    ) -> None:
        self._plans = _connect(context, address, socket_name(rank, token=token))
        self._answers = _connect(context, address, socket_name(rank, "answers", token))
        self._open_store = partial(_connect, context, address, socket_name(rank, "store", token))
        self._rank = rank
        self._received: SimpleQueue[tuple[Plan, list[Any]]] = SimpleQueue()
        self._begun: SimpleQueue[PlanOutcome | LoraRead | None] = SimpleQueue()

    def report(self, news: RankLoaded | LoadingProgress) -> None:
        """Report to rank 0 how far the model is loaded, that it is, or why not."""
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
        if worker.loras is not None:
            worker.loras.start(self._begun.put)
        answering = threading.Thread(target=_or_end, args=(self._answer,), daemon=True)
        answering.start()
        while True:
            plan, pictures = self._received.get()
            if plan.shutdown:
                break
            self._begun.put(worker.execute(plan, pictures))
        self._begun.put(None)
        answering.join()

    def _receive(self) -> None:
        decoder = Decoder(Plan)
        for number in itertools.count():
            plan, pictures = decoder.decode(self._plans.recv_multipart())
            assert isinstance(plan, Plan)
            if plan.number != number:
                raise ProtocolError(f"received plan {plan.number}, expected {number}")
            self._received.put((plan, pictures))
            if plan.shutdown:
                break
        self._plans.close()

    def _answer(self) -> None:
        while (outcome := self._begun.get()) is not None:
            if isinstance(outcome, LoraRead):
                self._answers.send_multipart(encode(outcome))
                continue
            ack, arrays = outcome.ack()
            self._answers.send_multipart(encode(ack, arrays), copy=not arrays)
        self._answers.close()


def _or_end(run: Callable[[], None]) -> None:
    """End the process on an error: a rank that misses a plan or can't reply would block the
    others."""
    try:
        run()
    except Exception:
        log.exception("fatal error in this rank")
        os._exit(1)


def _connect(
    context: zmq.Context[zmq.Socket[bytes]], address: str, identity: bytes
) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, identity)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_CLIENT_FRAME_BYTES)
    socket.linger = 500
    socket.connect(address)
    return socket
