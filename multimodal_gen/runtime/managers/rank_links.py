"""Sends plans to the ranks and receives their replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import zmq

from multimodal_gen.errors import EngineDied, ProtocolError
from multimodal_gen.messages.codec import Decoder, encode
from multimodal_gen.messages.plan import Plan, RankMessage


def socket_name(rank: int, use: str = "") -> bytes:
    """Identity of a rank's socket; plans go to the one without a `use`."""
    return f"{rank} {use}".strip().encode()


class RankLinks:
    """Rank 0's ends of the socket pairs to the Schedulers of all ranks, including its own."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], addresses: Sequence[str], size: int
    ) -> None:
        self.size = size
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 500
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        for address in addresses:
            self.socket.bind(address)
        self._decoder = Decoder(RankMessage)

    def send(self, plan: Plan, pictures: Sequence[Any] = ()) -> None:
        """Send to all ranks. Raises EngineDied if one is gone."""
        frames = encode(plan, pictures)
        for rank in range(self.size):
            try:
                self.socket.send_multipart([socket_name(rank), *frames])
            except zmq.ZMQError as error:
                raise EngineDied(f"rank {rank} can't be reached: {error}") from error

    def receive(self) -> tuple[Any, list[Any]]:
        """Receive a rank's message and arrays. Raises ProtocolError for an invalid message."""
        sender, *frames = self.socket.recv_multipart(copy=False)
        message, arrays = self._decoder.decode([frame.buffer for frame in frames])
        own = sender.bytes.partition(b" ")[0] == socket_name(message.rank)
        if not own or not 0 <= message.rank < self.size:
            raise ProtocolError(f"{sender.bytes!r} sent a message of rank {message.rank}")
        return message, arrays
