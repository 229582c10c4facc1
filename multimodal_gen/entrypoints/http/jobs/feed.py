"""One stream of events for all jobs of an owner, since a browser opens at most six connections."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fastapi import Request

from multimodal_gen.client.request_handle import Output
from multimodal_gen.entrypoints.http.openai.job_objects import job_of, progress_of
from multimodal_gen.entrypoints.http.openai.streaming import sse
from multimodal_gen.entrypoints.http.transport.owners import owner_of
from multimodal_gen.errors import NotFound, StorageUnavailable
from multimodal_gen.postprocess.images import encode_image
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.owner import digest_of
from multimodal_gen.serving.service import Service
from multimodal_gen.serving.task import Task

if TYPE_CHECKING:
    import numpy as np

TICK_S = 0.2
"""Interval at which a feed checks for changes; faster changes would not be visible anyway."""
_PREVIEW_QUALITY = 85


T = TypeVar("T")
Change = tuple[str, str]
"""Id of a job, and the digest of its owner."""


class _Listeners(Generic[T]):
    """Queues of feeds, which all get what is told. Thread-safe."""

    def __init__(self) -> None:
        self._listeners: list[deque[T]] = []

    @contextlib.contextmanager
    def listen(self) -> Iterator[deque[T]]:
        """Yield a queue of what is told from now on, to be taken from the left."""
        queue: deque[T] = deque()
        self._listeners.append(queue)
        try:
            yield queue
        finally:
            # By identity: two queues with the same content are equal.
            self._listeners = [each for each in self._listeners if each is not queue]

    def tell(self, news: T) -> None:
        for listener in self._listeners:
            listener.append(news)


class Changes(_Listeners[Change]):
    """Notifies feeds of ended jobs that were changed or deleted."""

    def hear(self, job_id: str, owner: str) -> None:
        """`owner` is a digest."""
        self.tell((job_id, owner))


class StartedTasks(_Listeners[str]):
    """An Observer that notifies feeds of started tasks, even very short ones."""

    def started(self, task: Task) -> None:
        self.tell(task.id)

    def made(self, task: Task, output: Output) -> None: ...

    def ended_early(self, task: Task) -> None: ...


@dataclass
class _Shown:
    """Last state of a job that a feed has sent."""

    progress: dict[str, Any] | None = None
    previews: dict[int, np.ndarray[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class JobFeed:
    """Events for the sender of `request`: `server` (its phase; number of their own and other queued
    and running requests), `job` (a Job, when it starts and ends, and when one of its outputs is
    starred or deleted), `job.progress`, `job.preview` and `job.deleted`. Ends when a stopping
    server has no work left."""

    request: Request
    service: Service
    jobs: Jobs
    started_tasks: StartedTasks
    changes: Changes = field(default_factory=Changes)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        shown: dict[str, _Shown] = {}
        sent: dict[str, Any] = {}
        with self.started_tasks.listen() as started, self.changes.listen() as changed:
            started.extend(self.jobs.alive)
            while True:
                if (server := self._server()) != sent:
                    sent = server
                    yield sse("server", server)
                try:
                    async for event in self._tick(started, shown):
                        yield event
                    async for event in self._changed(changed):
                        yield event
                except StorageUnavailable:
                    pass  # The rest follows with the next tick.
                if sent["phase"] == "stopping" and not shown:
                    return
                await asyncio.sleep(TICK_S)

    async def _tick(self, started: deque[str], shown: dict[str, _Shown]) -> AsyncIterator[bytes]:
        """Raises StorageUnavailable, after which it can be called again and leaves nothing out."""
        while started:
            if (event := await self._whole(started[0])) is not None:
                shown[started[0]] = _Shown()
                yield event
            started.popleft()
        for job_id in list(shown):
            async for event in self._news(job_id, shown):
                yield event

    async def _changed(self, changed: deque[Change]) -> AsyncIterator[bytes]:
        """Events of ended jobs that were starred, or deleted, wherever that was asked for. Raises
        like `_tick`."""
        owner = owner_of(self.request)
        while changed:
            job_id, of = changed[0]
            if owner.admin or of == digest_of(owner.name):
                yield await self._whole(job_id) or sse("job.deleted", {"id": job_id})
            changed.popleft()

    def _server(self) -> dict[str, Any]:
        owner = owner_of(self.request)
        counts = {True: 0, False: 0}
        for task in self.service.tasks:
            counts[task.owner.name == owner.name] += task.outputs.count(None)
        health = asdict(self.service.health())
        state = {name: health[name] for name in ("phase", "reason", "loading")}
        return {**state, "own": counts[True], "others": counts[False]}

    async def _news(self, job_id: str, shown: dict[str, _Shown]) -> AsyncIterator[bytes]:
        task = self.jobs.task(job_id)
        if task is None:
            event = await self._whole(job_id) or sse("job.deleted", {"id": job_id})
            del shown[job_id]
            yield event
            return
        seen, progress = shown[job_id], progress_of(task)
        if progress != seen.progress:
            seen.progress = progress
            # Until its files are written it has not ended, whatever the task's status.
            status = "queued" if task.status == "queued" else "in_progress"
            yield sse("job.progress", {"id": job_id, "status": status, **progress})
        for index, pixels in list(task.previews.items()):
            if seen.previews.get(index) is not pixels:
                seen.previews[index] = pixels
                picture = await asyncio.to_thread(_data_url, pixels)
                yield sse("job.preview", {"id": job_id, "index": index, "image_url": picture})

    async def _whole(self, job_id: str) -> bytes | None:
        """Full event of a job; None if it does not exist or has another owner."""
        try:
            record = await self.jobs.get(job_id, owner_of(self.request))
        except NotFound:
            return None
        task, results = self.jobs.task(job_id), self.jobs.results
        return sse(
            "job", {"job": await asyncio.to_thread(job_of, self.request, record, task, results)}
        )


def _data_url(pixels: np.ndarray[Any, Any]) -> str:
    file = encode_image(pixels, "jpeg", None, _PREVIEW_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file).decode("ascii")
