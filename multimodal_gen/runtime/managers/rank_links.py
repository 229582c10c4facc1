"""How plans get to the ranks, and their answers back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import zmq

from multimodal_gen.errors import EngineDied, ProtocolError
from multimodal_gen.messages.codec import Decoder, encode
from multimodal_gen.messages.plan import Plan, RankMessage


def socket_name(rank: int, use: str = "") -> bytes:
    """How a rank's socket is known here: plans go to the one that has no `use`."""
    return f"{rank} {use}".strip().encode()


class RankLinks:
    """Rank 0's end of the pairs to the Schedulers of all ranks, its own included."""

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
        """To every rank. Raises EngineDied when one is gone."""
        frames = encode(plan, pictures)
        for rank in range(self.size):
            try:
                self.socket.send_multipart([socket_name(rank), *frames])
            except zmq.ZMQError as error:
                raise EngineDied(f"rank {rank} can't be reached: {error}") from error

    def receive(self) -> tuple[Any, list[Any]]:
        """What a rank says, and its arrays. Raises ProtocolError for what no rank would say."""
        sender, *frames = self.socket.recv_multipart(copy=False)
        message, arrays = self._decoder.decode([frame.buffer for frame in frames])
        own = sender.bytes.partition(b" ")[0] == socket_name(message.rank)
        if not own or not 0 <= message.rank < self.size:
            raise ProtocolError(f"{sender.bytes!r} speaks for rank {message.rank}")
        return message, arrays
