"""The Scheduler of one rank: receives the numbered plans, has the worker carry them out in order,
and acknowledges each when the device is done with it."""

from __future__ import annotations

import logging
import os
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

import zmq

from multimodal_gen.errors import ProtocolError
from multimodal_gen.messages.codec import Decoder, encode
from multimodal_gen.messages.plan import Loaded, Plan
from multimodal_gen.runtime.managers.rank_links import socket_name

if TYPE_CHECKING:  # it pulls in torch, which must not keep rank 0's door shut
    from multimodal_gen.runtime.managers.gpu_worker import GPUWorker, Outcome

log = logging.getLogger(__name__)


class RankScheduler:
    """The same on every rank, rank 0 included. Answers have a socket and, once plans come, a thread
    of their own: the next plan begins while the last one's answer is on its way, and on a GPU while
    the last one still runs."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, rank: int) -> None:
        self._plans = _connect(context, address, socket_name(rank))
        self._answers = _connect(context, address, socket_name(rank, "answers"))
        self._decoder = Decoder(Plan)
        self._next_number = 0

    def report(self, loaded: Loaded) -> None:
        """Tell rank 0 that the model is there, or why not."""
        self._plans.send_multipart(encode(loaded))

    def run(self, worker: GPUWorker) -> None:
        """Carry out plans until one says shutdown."""
        begun: SimpleQueue[Outcome | None] = SimpleQueue()
        answering = threading.Thread(target=self._answer, args=(begun,), name="answers")
        answering.daemon = True
        answering.start()
        while not (plan := self._receive()).shutdown:
            begun.put(worker.execute(plan))
        begun.put(None)
        answering.join()
        self._plans.close()

    def _receive(self) -> Plan:
        plan, _ = self._decoder.decode(self._plans.recv_multipart())
        assert isinstance(plan, Plan)
        if plan.number != self._next_number:
            raise ProtocolError(f"plan {plan.number} came where {self._next_number} was due")
        self._next_number += 1
        return plan

    def _answer(self, begun: SimpleQueue[Outcome | None]) -> None:
        try:
            while (outcome := begun.get()) is not None:
                ack, arrays = outcome.ack()
                self._answers.send_multipart(encode(ack, arrays), copy=not arrays)
            self._answers.close()
        except Exception:  # the device failed after a plan was queued: rank 0 must not wait for it
            log.exception("an answer could not be given")
            os._exit(1)


def _connect(
    context: zmq.Context[zmq.Socket[bytes]], address: str, identity: bytes
) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, identity)
    socket.linger = 500
    socket.connect(address)
    return socket
