"""Clients' WebSockets: what is waiting to be sent to whom."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterator
from typing import Any

from multimodal_gen.serving.owner import Owner

PREVIEW, PREVIEW_WITH_METADATA = 1, 4
"""Kinds of binary messages."""
JPEG, PNG = 1, 2
_MIME = {JPEG: "image/jpeg", PNG: "image/png"}
_WAITING = 256
"""Messages; a client that leaves more unread is let go."""
_BUSY = 8
"""From so many on, what the next of its kind makes useless is left out."""
MAX_CHANNELS = 1000


class Channel:
    """One client's socket. Lives on one event loop."""

    def __init__(self) -> None:
        self.wants_metadata = False
        """It knows previews that say which node they are of."""
        self.lost = asyncio.Event()
        """It reads too slowly to be served any longer."""
        self._waiting: asyncio.Queue[str | bytes] = asyncio.Queue(_WAITING)

    def tell(self, type: str, data: dict[str, Any], *, passing: bool = False) -> None:
        """`passing`: the next of its kind says it anew."""
        if not (passing and self._is_busy):
            self._put(json.dumps({"type": type, "data": data}))

    def show(
        self, file: bytes, kind: int, prompt_id: str, node: str, *, passing: bool = True
    ) -> None:
        """A picture of what the node has so far."""
        if passing and self._is_busy:
            return
        if self.wants_metadata and passing:
            self._put(_with_metadata(file, kind, prompt_id, node))
        else:
            self._put(struct.pack(">II", PREVIEW, kind) + file)

    async def next(self) -> str | bytes:
        """What to send."""
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
    """The open ones, by whose they are and how the client calls itself."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], Channel] = {}

    @property
    def are_full(self) -> bool:
        return len(self._open) >= MAX_CHANNELS

    def open(self, owner: Owner, client_id: str) -> Channel:
        """A new one, in the place of the client's former."""
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
