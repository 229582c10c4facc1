"""Sends plans to the ranks, receives their replies, and notices when one of them is gone."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import zmq

from multimodal_gen.errors import EngineDied, MultimodalGenError, ProtocolError
from multimodal_gen.messages.codec import MAX_FRAME_BYTES, Decoder, encode, forward
from multimodal_gen.messages.links import PROBE, SILENCE_S, Door, LinkKeys, beat
from multimodal_gen.messages.plan import Plan, RankMessage
from multimodal_gen.messages.rank_args import socket_name
from multimodal_gen.messages.rendezvous import StoreCall
from multimodal_gen.runtime.scheduler.dropped_messages import DroppedMessages
from multimodal_gen.runtime.scheduler.kept_keys import KeptKeys

LOSS_S = 0.3
"""Time from a lost connection until the engine counts as lost. Who started the rank's process may
tell better how it ended."""


class RankLinks:
    """The Scheduler's ends of the socket pairs to all ranks."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        size: int,
        token: str = "",
        keys: LinkKeys | None = None,
    ) -> None:
        self.size = size
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 500
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        beat(self.socket)
        self._door = Door.before(self.socket, address, keys)
        self.monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self.socket.bind(address)
        self._decoder = Decoder(RankMessage | StoreCall)
        self._keys = KeptKeys()
        self._names = [socket_name(rank, token=token) for rank in range(size)]
        self._ranks = {
            socket_name(rank, use, token): rank
            for rank in range(size)
            for use in ("", "answers", "store")
        }
        self._heard_of: set[int] = set()
        self._due = math.inf
        self._suspected_until = -math.inf
        self.dropped = DroppedMessages("the ranks' socket")

    def send(self, plan: Plan, bodies: Sequence[Sequence[zmq.Frame]] = ()) -> None:
        """Send to all ranks. One that is gone is noticed by `check`."""
        frames = forward(plan, bodies)
        for name in self._names:
            if not self._sent([name, *frames], copy=not bodies):
                self._suspect()

    def receive(self) -> tuple[Any, list[list[zmq.Frame]]] | None:
        """Receive a rank's message, and the frames of its arrays as they came; None for a question
        about keys, which is answered, and for anything else, which is dropped."""
        sender, *frames = self.socket.recv_multipart(copy=False)
        try:
            message, bodies = self._read(self._ranks.get(sender.bytes), frames)
            if not isinstance(message, StoreCall):
                return message, bodies
            self._sent([sender.bytes, *encode(self._keys.answer(message))])
            return None
        except MultimodalGenError as error:
            self.dropped.add(error.message)
            return None

    def _read(self, rank: int | None, frames: list[zmq.Frame]) -> tuple[Any, list[list[zmq.Frame]]]:
        if rank is None:
            raise ProtocolError("its sender is no rank")
        message, bodies = self._decoder.split(frames)
        if message.rank != rank:
            raise ProtocolError(f"rank {rank} sent a message of rank {message.rank}")
        self._heard_of.add(rank)
        return message, bodies

    # -- ranks that are gone

    @property
    def patience(self) -> float:
        """Seconds until `check` is due, if nothing happens."""
        return max(0.0, self._due - time.monotonic())

    def check(self) -> None:
        """Raise EngineDied if a rank has been gone for a moment: its process is dead, stopped, or
        can't be reached."""
        while self.monitor.poll(0):
            self.monitor.recv_multipart()
            self._suspect()
        if (now := time.monotonic()) >= self._due:
            # A lost connection is told a moment before its socket refuses to send.
            self._due = now + LOSS_S if now < self._suspected_until else math.inf
            if gone := self._gone():
                raise EngineDied(f"rank {gone[0]} is silent")

    def close(self, patience_s: float) -> None:
        """Close once all ranks have disconnected, or after `patience_s`."""
        end = time.monotonic() + patience_s
        while len(self._gone()) < len(self._heard_of) and time.monotonic() < end:
            if self.monitor.poll(20):
                self.monitor.recv_multipart()
        self.socket.disable_monitor()
        self.socket.close()
        self.monitor.close()
        if self._door is not None:
            self._door.close()

    def _suspect(self) -> None:
        """Check soon. Who has disconnected is not told, and it may be a stranger."""
        now = time.monotonic()
        self._due = min(self._due, now + LOSS_S)
        self._suspected_until = now + SILENCE_S

    def _gone(self) -> list[int]:
        return [rank for rank in sorted(self._heard_of) if not self._is_connected(rank)]

    def _is_connected(self, rank: int) -> bool:
        try:
            return self._sent([self._names[rank], PROBE], flags=zmq.NOBLOCK)
        except zmq.Again:
            return True

    def _sent(self, frames: list[Any], **options: Any) -> bool:
        """False if its receiver is not connected."""
        try:
            self.socket.send_multipart(frames, **options)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True
