"""A client's handle of a submitted request: its updates, and ways to wait for its result."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from multimodal_gen.client.own_process import OwnProcess
from multimodal_gen.errors import MultimodalGenError, from_wire
from multimodal_gen.messages.reply import Evaluations, Usage
from multimodal_gen.messages.request import Runner
from multimodal_gen.messages.request_warning import RequestWarning

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Update:
    """Progress of a request; `preview` is [H, W, 3] uint8 if one was requested and is new."""

    id: str
    step: int
    total: int
    queue_position: int
    eta_s: float | None
    preview: np.ndarray[Any, Any] | None
    phase: str = ""
    """What is being done for it: enhance, encode, denoise or decode; empty while it waits."""
    runner: Runner | None = None
    """How its evaluations are run, once it is begun."""
    batch_size: int = 0
    """Number of requests that share its current work; 0 while it waits."""


@dataclass(frozen=True, eq=False)
class Output:
    """Result of a request: `pixels` [F, H, W, 3] uint8; F is 0 for sound alone."""

    id: str
    pixels: np.ndarray[Any, Any]
    seed: int
    fps: int | None
    timings: dict[str, float]
    batch_sizes: list[int]
    warnings: tuple[RequestWarning, ...] = ()
    """Parts of the request that had no effect, or another than requested."""
    audio: np.ndarray[Any, Any] | None = None
    """Sound, float32 [channels, samples] of about -1 to 1; None without."""
    audio_rate: int | None = None
    """Samples of sound per second; None without."""
    revised_prompt: str | None = None
    """The prompt that was used, if it was enhanced."""
    prompt_notes: tuple[str, ...] = ()
    """How its prompts were read, if it names a `prompt_syntax`: chunks and weights."""
    evaluations: Evaluations | None = None
    """Numbers of evaluations that were computed, and extrapolated."""
    file: bytes | None = None
    """A video as an MP4 that a server has encoded, in place of its pixels."""
    usage: Usage | None = None
    """What it cost."""

    def __repr__(self) -> str:
        frames, height, width = self.pixels.shape[:3]
        sound = "" if self.audio is None else ", with sound"
        return f"Output({size_text(frames, width, height)}, seed={self.seed}{sound})"


def size_text(frames: int, width: int, height: int) -> str:
    """Such as 96x96, 49 frames of 832x480, or nothing for sound alone."""
    size = f"{width}x{height}"
    return f"{frames} frames of {size}" if frames > 1 else size if frames else "no picture"


def warnings_of(outputs: Sequence[Output]) -> tuple[RequestWarning, ...]:
    """Return the warnings of a request's outputs, each once."""
    return tuple(dict.fromkeys(warning for output in outputs for warning in output.warnings))


def longest_timings(outputs: Sequence[Output]) -> dict[str, float]:
    """Return the longest time per phase, as the outputs of a request run concurrently."""
    phases = {phase for output in outputs for phase in output.timings}
    return {
        phase: max(output.timings.get(phase, 0.0) for output in outputs) for phase in sorted(phases)
    }


RequestEvent = Update | Output | MultimodalGenError
"""Events of a request: updates, then its output or its error."""


class RequestHandle:
    """One submitted request. Any thread or coroutine can wait for it or cancel it."""

    def __init__(self, request_id: str, cancel: Callable[[str], None]) -> None:
        self._process = OwnProcess()
        self.id = request_id
        self._cancel = cancel
        self._changed = threading.Condition()
        self._wakers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._accepted = False
        self._update: Update | None = None
        self._output: Output | None = None
        self._error: MultimodalGenError | None = None

    def cancel(self) -> None:
        """Ask the engine to cancel it; it ends with `Cancelled` unless it has completed."""
        self._cancel(self.id)

    def accepted(self, timeout: float | None = None) -> None:
        """Return once the engine has accepted the request; raise the reason if it did not."""
        self._wait(lambda: self._accepted or self._ended, timeout)
        if self._error is not None:
            raise copy_of(self._error)

    def result(self, timeout: float | None = None) -> Output:
        """Wait for the output; raise the request's error, or TimeoutError."""
        self._wait(lambda: self._ended, timeout)
        return self._outcome()

    async def aresult(self) -> Output:
        await self._await(lambda: self._ended)
        return self._outcome()

    def __iter__(self) -> Iterator[Update | Output]:
        while True:
            self._wait(lambda: self._ended or self._update is not None, None)
            if (update := self._take_update()) is not None:
                yield update
            elif self._ended:
                yield self._outcome()
                return

    async def __aiter__(self) -> AsyncIterator[Update | Output]:
        while True:
            await self._await(lambda: self._ended or self._update is not None)
            if (update := self._take_update()) is not None:
                yield update
            elif self._ended:
                yield self._outcome()
                return

    async def report(self, receive: Callable[[RequestEvent], None]) -> None:
        """Call `receive` with every event of `async for`, and with the error if it fails."""
        try:
            async for event in self:
                receive(event)
        except MultimodalGenError as error:
            receive(error)

    # -- the client's thread

    def _deliver(self, event: bool | RequestEvent) -> None:
        with self._changed:
            if self._ended:
                return
            self._accepted = True
            if isinstance(event, Update):
                self._update = _newest(self._update, event)
            elif isinstance(event, Output):
                self._output = event
            elif isinstance(event, MultimodalGenError):
                self._error = event
            self._changed.notify_all()
            for loop, waker in self._wakers:
                with contextlib.suppress(RuntimeError):  # The loop is closed: nothing waits.
                    loop.call_soon_threadsafe(waker.set)

    # -- waiting

    @property
    def _ended(self) -> bool:
        return self._output is not None or self._error is not None

    def _outcome(self) -> Output:
        if self._error is not None:
            raise copy_of(self._error)
        assert self._output is not None
        return self._output

    def _take_update(self) -> Update | None:
        with self._changed:
            update, self._update = self._update, None
            return update

    def _wait(self, condition: Callable[[], bool], timeout: float | None) -> None:
        self._process.check()
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError(f"request {self.id} is still running after {timeout} s")

    async def _await(self, condition: Callable[[], bool]) -> None:
        self._process.check()
        waker = (asyncio.get_running_loop(), asyncio.Event())
        with self._changed:
            self._wakers.add(waker)
        try:
            while not condition():
                await waker[1].wait()
                waker[1].clear()
        finally:
            with self._changed:
                self._wakers.discard(waker)


def copy_of(error: MultimodalGenError) -> MultimodalGenError:
    """Copy an error for each waiter, as a raised error keeps its traceback's frames."""
    return from_wire(error.code, error.message, error.field, error.retry_after_s)


def _newest(old: Update | None, new: Update) -> Update:
    """Return the newer of two updates, with a preview that was not delivered yet."""
    if old is not None and new.preview is None and old.preview is not None:
        return replace(new, preview=old.preview)
    return new
