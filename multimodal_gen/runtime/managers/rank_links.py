"""Sends plans to the ranks and receives their replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import zmq

from multimodal_gen.errors import EngineDied, MultimodalGenError, ProtocolError
from multimodal_gen.messages.codec import MAX_FRAME_BYTES, Decoder, encode
from multimodal_gen.messages.plan import Plan, RankMessage
from multimodal_gen.messages.rendezvous import StoreCall
from multimodal_gen.runtime.managers.dropped_messages import DroppedMessages
from multimodal_gen.runtime.managers.kept_keys import KeptKeys


def socket_name(rank: int, use: str = "", token: str = "") -> bytes:
    """Identity of a rank's socket; plans go to the one without a `use`.

    Since it contains the launch's token, nothing else can connect under a rank's name.
    """
    return " ".join(filter(None, (str(rank), use, token))).encode()


class RankLinks:
    """Rank 0's ends of the socket pairs to the Schedulers of all ranks, including its own."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        addresses: Sequence[str],
        size: int,
        token: str = "",
    ) -> None:
        self.size = size
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 500
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        for address in addresses:
            self.socket.bind(address)
        self._decoder = Decoder(RankMessage | StoreCall)
        self._keys = KeptKeys()
        self._names = [socket_name(rank, token=token) for rank in range(size)]
        self._ranks = {
            socket_name(rank, use, token): rank
            for rank in range(size)
            for use in ("", "answers", "store")
        }
        self.dropped = DroppedMessages("the ranks' socket")

    def send(self, plan: Plan, pictures: Sequence[Any] = ()) -> None:
        """Send to all ranks. Raises EngineDied if one is gone."""
        frames = encode(plan, pictures)
        for rank, name in enumerate(self._names):
            try:
                self.socket.send_multipart([name, *frames])
            except zmq.ZMQError as error:
                raise EngineDied(f"rank {rank} can't be reached: {error}") from error

    def receive(self) -> tuple[Any, list[Any]] | None:
        """Receive a rank's message and arrays; None for a question about keys, which is
        answered, and for anything else, which is dropped."""
        sender, *frames = self.socket.recv_multipart(copy=False)
        try:
            read = self._read(self._ranks.get(sender.bytes), [frame.buffer for frame in frames])
            if not isinstance(read[0], StoreCall):
                return read
            self.socket.send_multipart([sender.bytes, *encode(self._keys.answer(read[0]))])
            return None
        except MultimodalGenError as error:
            self.dropped.add(error.message)
            return None

    def _read(self, rank: int | None, frames: list[Any]) -> tuple[Any, list[Any]]:
        if rank is None:
            raise ProtocolError("its sender is no rank")
        message, arrays = self._decoder.decode(frames)
        if message.rank != rank:
            raise ProtocolError(f"rank {rank} sent a message of rank {message.rank}")
        return message, arrays
