"""What waits until a client reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from multimodal_gen.messages.codec import Buffer

MAX_UNREAD_BYTES = 2**30
"""Who leaves more than this unread has left."""
MESSAGE_BYTES = 1024
"""About what a message costs besides its frames."""


class Outbox:
    """What waits for one client: results and errors all, of progress only each request's newest."""

    def __init__(self) -> None:
        self._certain: deque[list[Buffer]] = deque()
        self._newest: dict[str, list[Buffer]] = {}
        self._bytes = 0

    @property
    def overfull(self) -> bool:
        return self._bytes > MAX_UNREAD_BYTES

    def put(self, frames: list[Buffer]) -> None:
        """A message that must arrive, after those before it."""
        self._certain.append(frames)
        self._bytes += _size(frames)

    def put_newest(self, request_id: str, frames: list[Buffer]) -> None:
        """In the place of what the request had to tell before."""
        self._newest[request_id] = frames

    def put_if_none(self, request_id: str, frames: list[Buffer]) -> None:
        self._newest.setdefault(request_id, frames)

    def put_last(self, request_id: str, frames: list[Buffer]) -> None:
        """The end of a request: nothing else of it is worth telling."""
        self._newest.pop(request_id, None)
        self.put(frames)

    def flush(self, transmit: Callable[[list[Buffer]], None]) -> None:
        """Transmit all; what `transmit` raises leaves the rest as it was."""
        while self._certain:
            transmit(self._certain[0])
            self._bytes -= _size(self._certain.popleft())
        while self._newest:
            request_id = next(iter(self._newest))
            transmit(self._newest[request_id])
            del self._newest[request_id]


def _size(frames: list[Buffer]) -> int:
    return MESSAGE_BYTES + sum(len(frame) for frame in frames)
