"""Streams images in progress as server-sent events in OpenAI's format."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from multimodal_gen.entrypoints.http.openai.image_replies import (
    Encoding,
    common,
    in_base64,
    output_fields,
    quality_of,
    size_of_result,
)
from multimodal_gen.entrypoints.http.openai.schema import ImageFields
from multimodal_gen.entrypoints.http.transport.errors import log_and_envelope
from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.messages.request_warning import as_plain
from multimodal_gen.serving.task import Event, Made, Moved, Previewed, Task
from multimodal_gen.serving.usage import RequestUsage

log = logging.getLogger(__name__)
PING_S = 15.0
_ROUNDING = 1e-6
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}

StreamUpdate = bytes | asyncio.Task[bytes]
"""An event, or one whose image is being encoded."""


class EventStream(StreamingResponse):
    """Server-sent events, with comments as keep-alive."""

    def __init__(self, events: AsyncIterable[bytes]) -> None:
        super().__init__(
            with_pings(events), headers=_HEADERS, media_type="text/event-stream; charset=utf-8"
        )


class TaskStream(EventStream):
    """A stream about a task, which is cancelled when the client disconnects."""

    def __init__(self, task: Task, events: AsyncIterable[bytes]) -> None:
        super().__init__(events)
        self._task = task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._task.cancel()


@dataclass
class Partials:
    """Selects the previews of one output to show: at most `left`, spread over its steps."""

    left: int
    shown: int = 0
    _next: float = field(init=False)

    def __post_init__(self) -> None:
        self._next = 1 / (self.left + 1)

    def take(self, fraction: float) -> int | None:
        """Index of the preview at `fraction` of the steps, if it is to be shown."""
        if not self.left or fraction < self._next - _ROUNDING:
            return None
        self.left -= 1
        self.shown += 1
        self._next = fraction + (1 - fraction) / (self.left + 1)
        return self.shown - 1


@dataclass(frozen=True)
class ImageEvents:
    """Events of one request. `kind` is the first half of their types."""

    kind: str
    body: ImageFields
    encoding: Encoding
    task: Task
    request_id: str

    async def __aiter__(self) -> AsyncIterator[bytes]:
        updates: asyncio.Queue[StreamUpdate | None] = asyncio.Queue()
        following = asyncio.create_task(self._follow(updates))
        try:
            while (event := await updates.get()) is not None:
                yield event if isinstance(event, bytes) else await event
            await following
        except MultimodalGenError as error:
            self.body.name_as_sent(error)
            yield sse("error", {"error": log_and_envelope(error)[1]})
        except Exception:
            log.exception("a stream failed")
            yield sse("error", {"error": log_and_envelope(MultimodalGenError("internal error"))[1]})
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _follow(self, updates: asyncio.Queue[StreamUpdate | None]) -> None:
        """Never waits for encoding or for the client, which would miss previews."""
        count = self.body.partial_images or 0
        partials = [Partials(count) for _ in self.task.requests]
        try:
            async for event in self.task.events():
                if (update := self._update_of(event, partials)) is not None:
                    updates.put_nowait(update)
        finally:
            updates.put_nowait(None)

    def _update_of(self, event: Event, partials: list[Partials]) -> StreamUpdate | None:
        if isinstance(event, Moved):
            return self._progress(event) if self.body.stream_progress else None
        if isinstance(event, Made):
            return asyncio.create_task(asyncio.to_thread(self._completed, event))
        shown = partials[event.index].take(self.task.fraction(event.index))
        if shown is None:
            return None
        return asyncio.create_task(asyncio.to_thread(self._partial, event, shown))

    def _partial(self, event: Previewed, shown: int) -> bytes:
        file = self.encoding.encode_preview(self.task.requests[event.index], event.pixels)
        return self._picture("partial_image", event.index, file, {"partial_image_index": shown})

    def _completed(self, event: Made) -> bytes:
        req = self.task.requests[event.index]
        file = self.encoding.encode(req, event.output)
        extra = {
            "usage": RequestUsage.of([req], [event.output]).described(),
            "size": size_of_result(event.output),
            **output_fields(event.output),
            "request_id": self.request_id,
        }
        if warnings := [*self.body.warnings(), *event.output.warnings]:
            extra["warnings"] = as_plain(warnings)
        return self._picture("completed", event.index, file, extra)

    def _picture(self, name: str, index: int, file: bytes, extra: dict[str, Any]) -> bytes:
        data = {
            "b64_json": in_base64(file),
            "created_at": int(time.time()),
            **common(self.body, self.encoding, self.task.requests[index]),
            "quality": quality_of(self.body),
            "image_index": index,
            **extra,
        }
        return sse(f"{self.kind}.{name}", data)

    def _progress(self, event: Moved) -> bytes:
        progress = event.progress
        data = {
            "step": progress.step,
            "total": progress.total,
            "progress": round(progress.fraction, 4),
            "queue_position": progress.queue_position,
            "eta_s": progress.eta_s,
            "phase": progress.phase,
        }
        return sse(f"{self.kind}.progress", data)


def sse(kind: str, data: dict[str, Any]) -> bytes:
    """Format one event; its type is also in the data, where OpenAI's clients look for it."""
    # ASCII: an error message may contain half a surrogate pair from the request.
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode("ascii")


async def with_pings(events: AsyncIterable[bytes], every_s: float = PING_S) -> AsyncIterator[bytes]:
    """Yield `events`, and a comment after each interval without one, to keep the connection
    open."""
    iterator = aiter(events)

    def next_one() -> asyncio.Task[bytes | None]:
        return asyncio.create_task(_next(iterator))

    coming = next_one()
    try:
        while True:
            done, _ = await asyncio.wait((coming,), timeout=every_s)
            if not done:
                yield b": ping\n\n"
                continue
            if (event := coming.result()) is None:
                return
            coming = next_one()
            yield event
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)


async def _next(iterator: AsyncIterator[bytes]) -> bytes | None:
    return await anext(iterator, None)
