"""The Scheduler of one rank: receives the numbered plans, has the worker carry them out in order,
and acknowledges each."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

import zmq

from multimodal_gen.errors import ProtocolError
from multimodal_gen.messages.codec import Decoder, encode
from multimodal_gen.messages.plan import Loaded, Plan

if TYPE_CHECKING:  # it pulls in torch, which must not keep rank 0's door shut
    from multimodal_gen.runtime.managers.gpu_worker import GPUWorker, Outcome

log = logging.getLogger(__name__)
AHEAD = 2
"""Plans begun and not acknowledged: the one that the device works on, and the next."""
POLL_MS = 1
"""How often a busy GPU is asked whether it is done."""


class RankScheduler:
    """The same on every rank, rank 0 included."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, rank: int) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, str(rank).encode())
        self._socket.linger = 500
        self._socket.connect(address)
        self._decoder = Decoder(Plan)
        self._next_number = 0

    def report(self, loaded: Loaded) -> None:
        """Tell rank 0 that the model is there, or why not."""
        self._socket.send_multipart(encode(loaded))

    def run(self, worker: GPUWorker) -> None:
        """Carry out plans until one says shutdown."""
        begun: deque[Outcome] = deque()
        while True:
            if begun and (len(begun) == AHEAD or begun[0].done()):
                self._acknowledge(begun.popleft())
            elif not begun or self._socket.poll(POLL_MS):
                plan = self._receive()
                if plan.shutdown:
                    break
                begun.append(worker.execute(plan))
        self._socket.close()

    def _receive(self) -> Plan:
        plan, _ = self._decoder.decode(self._socket.recv_multipart())
        assert isinstance(plan, Plan)
        if plan.number != self._next_number:
            raise ProtocolError(f"plan {plan.number} came where {self._next_number} was due")
        self._next_number += 1
        return plan

    def _acknowledge(self, outcome: Outcome) -> None:
        ack, arrays = outcome.ack()
        self._socket.send_multipart(encode(ack, arrays), copy=not arrays)
