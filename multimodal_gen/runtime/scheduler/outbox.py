"""Buffers messages until a client reads them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import zmq

from multimodal_gen.messages.codec import Buffer

Frames = Sequence[Buffer | zmq.Frame]
"""One message. Frames that came from a rank go on as they are, without a copy."""
MAX_UNREAD_BYTES = 2**30
"""A client with more unread bytes than this counts as disconnected."""
MESSAGE_BYTES = 1024
"""Approximate cost of a message besides its frames."""


class Outbox:
    """Messages for one client: all results and errors, but only the newest progress per request."""

    def __init__(self) -> None:
        self._certain: deque[Frames] = deque()
        self._newest: dict[str, Frames] = {}
        self._bytes = 0

    @property
    def overfull(self) -> bool:
        return self._bytes > MAX_UNREAD_BYTES

    def put(self, frames: Frames) -> None:
        """Append a message that must arrive, in order."""
        self._certain.append(frames)
        self._bytes += _size(frames)

    def put_newest(self, request_id: str, frames: Frames) -> None:
        """Replace the request's previous progress."""
        self._newest[request_id] = frames

    def put_if_none(self, request_id: str, frames: Frames) -> None:
        self._newest.setdefault(request_id, frames)

    def put_last(self, request_id: str, frames: Frames) -> None:
        """Append a request's last message, and drop its progress."""
        self._newest.pop(request_id, None)
        self.put(frames)

    def flush(self, transmit: Callable[[Frames], None]) -> None:
        """Transmit everything; if `transmit` raises, the remaining messages stay queued."""
        while self._certain:
            transmit(self._certain[0])
            self._bytes -= _size(self._certain.popleft())
        while self._newest:
            request_id = next(iter(self._newest))
            transmit(self._newest[request_id])
            del self._newest[request_id]


def _size(frames: Frames) -> int:
    return MESSAGE_BYTES + sum(len(frame) for frame in frames)
