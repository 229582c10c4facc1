"""WebSockets of clients, with their pending messages."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterator
from typing import Any

from multimodal_gen.serving.owner import Owner

PREVIEW, PREVIEW_WITH_METADATA = 1, 4
"""Types of binary messages."""
JPEG, PNG = 1, 2
_MIME = {JPEG: "image/jpeg", PNG: "image/png"}
_WAITING = 256
"""Maximum number of pending messages; a slower client is disconnected."""
_BUSY = 8
"""From this many pending messages on, those replaced by a later one are dropped."""
MAX_CHANNELS = 1000


class Channel:
    """One client's socket. Runs on one event loop."""

    def __init__(self) -> None:
        self.wants_metadata = False
        """The client supports previews that name their node."""
        self.lost = asyncio.Event()
        """Set when the client reads too slowly to be served, or has another socket."""
        self._waiting: asyncio.Queue[str | bytes] = asyncio.Queue(_WAITING)

    def tell(self, type: str, data: dict[str, Any], *, passing: bool = False) -> None:
        """`passing`: may be dropped, because the next one of its type replaces it."""
        if not (passing and self._is_busy):
            self._put(json.dumps({"type": type, "data": data}))

    def show(
        self, file: bytes, kind: int, prompt_id: str, node: str, *, passing: bool = True
    ) -> None:
        """Send a preview of the node's result."""
        if passing and self._is_busy:
            return
        if self.wants_metadata and passing:
            self._put(_with_metadata(file, kind, prompt_id, node))
        else:
            self._put(struct.pack(">II", PREVIEW, kind) + file)

    async def next(self) -> str | bytes:
        """Wait for the next message to send."""
        return await self._waiting.get()

    def _put(self, message: str | bytes) -> None:
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            self.lost.set()

    @property
    def _is_busy(self) -> bool:
        return self._waiting.qsize() >= _BUSY


class Channels:
    """Open channels by owner and client id."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], Channel] = {}

    @property
    def are_full(self) -> bool:
        return len(self._open) >= MAX_CHANNELS

    def open(self, owner: Owner, client_id: str) -> Channel:
        """Open a channel, replacing the client's previous one."""
        if (before := self._open.get((owner.name, client_id))) is not None:
            before.lost.set()
        channel = self._open[owner.name, client_id] = Channel()
        return channel

    def close(self, owner: Owner, client_id: str, channel: Channel) -> None:
        if self._open.get((owner.name, client_id)) is channel:
            del self._open[owner.name, client_id]

    def of(self, owner: Owner, client_id: str | None) -> Channel | None:
        return None if client_id is None else self._open.get((owner.name, client_id))

    def all_of(self, owner: Owner) -> Iterator[Channel]:
        return (channel for (name, _), channel in self._open.items() if name == owner.name)


def _with_metadata(file: bytes, kind: int, prompt_id: str, node: str) -> bytes:
    metadata = {
        "node_id": node,
        "display_node_id": node,
        "real_node_id": node,
        "parent_node_id": None,
        "prompt_id": prompt_id,
        "image_type": _MIME[kind],
    }
    text = json.dumps(metadata).encode("ascii")
    return struct.pack(">II", PREVIEW_WITH_METADATA, len(text)) + text + file
