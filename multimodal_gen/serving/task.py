"""A task: all outputs of one client request, and the events that its followers see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from multimodal_gen.client.request_handle import Output, RequestEvent, Update, copy_of
from multimodal_gen.configs.second_pass import expected_steps
from multimodal_gen.errors import Cancelled, MultimodalGenError
from multimodal_gen.messages.request import Req
from multimodal_gen.serving.owner import Owner

if TYPE_CHECKING:
    import numpy as np

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]


@dataclass(frozen=True)
class TaskProgress:
    """Combined progress of all outputs of a task."""

    step: int
    total: int
    queue_position: int
    """Number of requests ahead of its first one; 0 once one runs."""
    eta_s: float | None
    loading: bool = False
    """It waits for its model to be loaded."""
    phase: str = ""
    """What is being done for its first output that is under way; see `RequestProgress`."""
    batch_size: int = 0
    """Number of requests that share the current work of that output; 0 while it waits."""

    @property
    def fraction(self) -> float:
        return min(1.0, self.step / self.total) if self.total else 0.0


@dataclass(frozen=True)
class Moved:
    progress: TaskProgress


@dataclass(frozen=True)
class Previewed:
    index: int
    pixels: np.ndarray[Any, Any]
    """[h, w, 3] uint8 of output `index`."""


@dataclass(frozen=True)
class Made:
    index: int
    output: Output


Event = Moved | Previewed | Made


class Task:
    """`n` images or a video. Runs on one event loop; any number of coroutines may follow it."""

    def __init__(
        self,
        task_id: str,
        owner: Owner,
        requests: Sequence[Req],
        cancel: Callable[[Task], None],
        *,
        model: str,
        durable: bool = False,
        is_loading: Callable[[], bool] = lambda: False,
    ) -> None:
        """`cancel` is called when a client cancels the task; `is_loading` returns whether its model
        is being loaded."""
        self.id = task_id
        self.owner = owner
        self.model = model
        self.requests = tuple(requests)
        self.created_at = time.time()
        self.durable = durable
        """Stored in the ledger, so the next server can resume it."""
        self.status: Status = "queued"
        self.preview: np.ndarray[Any, Any] | None = None
        """Newest preview."""
        self.previews: dict[int, np.ndarray[Any, Any]] = {}
        """Newest preview per unfinished output."""
        self.outputs: list[Output | None] = [None] * len(self.requests)
        self.error: MultimodalGenError | None = None
        self.ended_elsewhere = False
        """It followed a job of another front, which has ended: see its record."""
        self._updates = [_unknown(req) for req in self.requests]
        self._cancel = cancel
        self._is_loading = is_loading
        self._wakers: set[asyncio.Event] = set()

    @property
    def done(self) -> bool:
        return self.ended_elsewhere or self.error is not None or None not in self.outputs

    @property
    def made(self) -> list[Output]:
        """Outputs that are finished, in order."""
        return [output for output in self.outputs if output is not None]

    @property
    def progress(self) -> TaskProgress:
        alive = [u for u, output in zip(self._updates, self.outputs, strict=True) if output is None]
        etas = [update.eta_s for update in alive if update.eta_s is not None]
        return TaskProgress(
            step=sum(update.step for update in self._updates),
            total=sum(update.total for update in self._updates),
            queue_position=min((update.queue_position for update in alive), default=0),
            eta_s=max(etas, default=None) if alive else 0.0,
            phase=next((update.phase for update in alive if update.phase), ""),
            batch_size=max((update.batch_size for update in alive), default=0),
            loading=self.status == "queued" and self._is_loading(),
        )

    @property
    def updates(self) -> Sequence[Update]:
        """Newest progress of each output."""
        return self._updates

    def fraction(self, index: int) -> float:
        """Fraction of output `index` that is done, 0 to 1."""
        update = self._updates[index]
        return min(1.0, update.step / update.total) if update.total else 0.0

    def cancel(self) -> None:
        """Fail it with `Cancelled`, for all followers; no effect once it has ended."""
        if not self.done:
            self.fail(Cancelled("the request was cancelled"))
            self._cancel(self)

    async def wait(self) -> list[Output]:
        """Wait for all outputs and return them in order. Raises the task's error."""
        async for _ in self.changes():
            pass
        if self.error is not None:
            raise copy_of(self.error)
        return self.made

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield the current state, then all events. A slow consumer misses older progress and
        previews, but no output. Ends after the last `Made`; raises the task's error."""
        seen_progress: TaskProgress | None = None
        seen_previews: dict[int, np.ndarray[Any, Any]] = {}
        seen_outputs: set[int] = set()
        async with aclosing(self.changes()) as changes:
            async for _ in changes:
                if (progress := self.progress) != seen_progress:
                    seen_progress = progress
                    yield Moved(progress)
                for index, pixels in list(self.previews.items()):
                    if seen_previews.get(index) is not pixels:
                        seen_previews[index] = pixels
                        yield Previewed(index, pixels)
                for index, output in enumerate(self.outputs):
                    if output is not None and index not in seen_outputs:
                        seen_outputs.add(index)
                        yield Made(index, output)
        if self.error is not None:
            raise copy_of(self.error)

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yield at once, and then after changes, where simultaneous changes count as one. Ends
        after yielding for the state in which the task is done."""
        changed = asyncio.Event()
        self._wakers.add(changed)
        try:
            while True:
                changed.clear()
                done = self.done
                yield
                if done:
                    return
                await changed.wait()
        finally:
            self._wakers.discard(changed)

    # -- what the engine reports

    def receive(self, index: int, event: RequestEvent) -> None:
        """Apply an event of output `index`. An error ends the whole task."""
        if isinstance(event, Update):
            self._move(index, event)
        elif isinstance(event, Output):
            self._make(index, event)
        else:
            self.fail(event)
            self._cancel(self)

    def _move(self, index: int, update: Update) -> None:
        """Update the progress of output `index`, which may decrease."""
        if self.done:
            return
        self._updates[index] = update
        if update.queue_position == 0:
            self.status = "in_progress"
        if update.preview is not None:
            self.preview = self.previews[index] = update.preview
        self._wake()

    def _make(self, index: int, output: Output) -> None:
        """Set output `index`."""
        if self.done:
            return
        self.outputs[index] = output
        total = self._updates[index].total
        self._updates[index] = Update(output.id, total, total, 0, 0.0, None)
        self.previews.pop(index, None)
        self.status = "completed" if self.done else "in_progress"
        self._wake()

    def fail(self, error: MultimodalGenError) -> None:
        """Fail the task, because one of its outputs failed."""
        if self.done:
            return
        self.error = error
        self.status = "cancelled" if isinstance(error, Cancelled) else "failed"
        self._wake()

    def end_elsewhere(self) -> None:
        """End a task that only follows another front's, for all followers."""
        self.ended_elsewhere = True
        self._wake()

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()


def _unknown(req: Req) -> Update:
    """Progress of a request before its first update."""
    return Update(req.id, 0, expected_steps(req.params), 1, None, None)
