"""Client of the engine: a DEALER socket, owned by one thread, used by any number of threads.

`submit` returns a `RequestHandle`; threads read it with `for` and `result()`, coroutines with
`async for` and `aresult()`. When the engine dies, every request in flight ends with `EngineDied`,
once.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

from multimodal_gen.client.own_process import OwnProcess
from multimodal_gen.client.request_handle import (
    Output,
    RequestEvent,
    RequestHandle,
    Update,
    copy_of,
)
from multimodal_gen.errors import EngineDied, EngineNotReady, MultimodalGenError, ProtocolError
from multimodal_gen.messages.codec import MAX_FRAME_BYTES, Buffer, Decoder, encode
from multimodal_gen.messages.evaluation_costs import EvaluationCosts
from multimodal_gen.messages.links import LinkKeys, beat, keys_for, unlock
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.rank_args import token_file
from multimodal_gen.messages.reply import (
    EngineHealth,
    EngineMessage,
    Failed,
    NotReady,
    Ready,
    RequestAccepted,
    RequestProgress,
    Result,
    WireError,
)
from multimodal_gen.messages.request import Cancel, HealthCheck, Hello, Req, Shutdown, Submit
from multimodal_gen.messages.wakeup import Wakeup

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)
DRAIN_MS = 50


class SchedulerClient:
    """One connection to an engine, for any number of threads and coroutines."""

    def __init__(
        self,
        address: str,
        *,
        keys: LinkKeys | None = None,
        describe_loss: Callable[[], str] = lambda: "the connection to the engine was lost",
    ) -> None:
        """`keys` of an engine at a `tcp://` address; `describe_loss` returns the reason once the
        connection is lost, or silent for a moment."""
        self._process = OwnProcess()
        self.address = address
        self.model: ModelInfo | None = None
        self.loading: LoadingProgress | None = None
        """Newest progress of an engine that is not ready yet."""
        self.costs = EvaluationCosts()
        """Newest prediction of the engine."""
        self.num_ranks = 0
        self.died: MultimodalGenError | None = None
        self._handles: dict[str, RequestHandle] = {}
        self._outgoing: deque[list[Buffer]] = deque([encode(Hello())])
        self._health: deque[EngineHealth] = deque()
        self._lock = threading.Condition()
        self._closing = False
        self._describe_loss = describe_loss
        self._context = zmq.Context()
        self._wakeup = Wakeup(self._context, "scheduler-client")
        self._socket = self._open(keys)
        self._thread = threading.Thread(target=self._run, name="scheduler-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> SchedulerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_ready(
        self,
        timeout: float | None = None,
        show: Callable[[LoadingProgress], None] = lambda progress: None,
    ) -> ModelInfo:
        """Wait until the model is loaded; meanwhile, `show` the progress. Raises the loading error,
        EngineDied or TimeoutError."""
        self._process.check()
        end = None if timeout is None else time.monotonic() + timeout
        shown = None
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            with self._lock:
                waited = self._lock.wait_for(partial(self._has_news, shown), left)
                if self.died is not None:
                    raise copy_of(self.died)
                if self.model is not None:
                    return self.model
                progress = self.loading
            if not waited:
                raise TimeoutError(f"the engine at {self.address} is not ready after {timeout} s")
            if progress is not None:
                shown = progress
                show(progress)

    def _has_news(self, shown: LoadingProgress | None) -> bool:
        """True if a client that waits has something else than `shown` to hear."""
        return self.model is not None or bool(self.died) or self.loading is not shown

    def submit(self, req: Req, pictures: Sequence[np.ndarray[Any, Any]] = ()) -> RequestHandle:
        """Send a request and the images that it announces. A repeated id returns the existing
        RequestHandle."""
        self._process.check()
        with self._lock:
            self._raise_if_gone()
            if req.id in self._handles:
                return self._handles[req.id]
            self._send(Submit(req), pictures)
            handle = self._handles[req.id] = RequestHandle(req.id, self._send_cancel)
        return handle

    def health(self, timeout: float = 5.0) -> EngineHealth:
        """Ask for the engine's running and waiting requests; it answers at once, even in a step."""
        self._process.check()
        with self._lock:
            self._raise_if_gone()
            self._health.clear()
            self._send(HealthCheck())
            if not self._lock.wait_for(lambda: bool(self._health) or bool(self.died), timeout):
                raise TimeoutError(f"no answer from the engine in {timeout} s")
            self._raise_if_gone()
            return self._health[-1]

    def shutdown_engine(self) -> None:
        """Stop the engine for all of its clients."""
        with self._lock:
            if self.died is None and not self._closing:
                self._send(Shutdown())

    def fail(self, error: MultimodalGenError) -> None:
        """Mark the engine as dead: all requests in flight end with `error`."""
        with self._lock:
            self.died = self.died or error
            handles = list(self._handles.values())
            self._handles.clear()
            self._lock.notify_all()
        for handle in handles:
            handle._deliver(self.died)

    def close(self) -> None:
        """Disconnect; the engine cancels requests that are still in flight. No effect in a forked
        process."""
        if not self._process.is_this:
            return
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._wakeup.ring()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self.fail(EngineNotReady("the client was closed"))

    # -- any thread, under the lock

    def _raise_if_gone(self) -> None:
        if self.died is not None:
            raise copy_of(self.died)
        if self._closing:
            raise EngineNotReady("the client was closed")

    def _send(self, message: msgspec.Struct, pictures: Sequence[np.ndarray[Any, Any]] = ()) -> None:
        # Encoded here, so that the caller gets the error of a message that can't be encoded.
        self._outgoing.append(encode(message, pictures))
        self._wakeup.ring()

    def _send_cancel(self, request_id: str) -> None:
        with self._lock:
            if request_id in self._handles and not self._closing:
                self._send(Cancel(request_id))

    # -- the client's own thread

    def _open(self, keys: LinkKeys | None) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.setsockopt(zmq.IDENTITY, _token(self.address) + secrets.token_bytes(16))
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        socket.setsockopt(zmq.SNDHWM, 0)  # A frozen engine must not block this thread.
        socket.setsockopt(zmq.RECONNECT_IVL, 20)
        beat(socket)
        if (needed := keys_for(self.address, keys)) is not None:
            unlock(socket, needed)
        self._monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        socket.connect(self.address)
        return socket

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:
            log.exception("the connection to the engine failed")
            self.fail(EngineDied(f"the connection failed: {type(error).__name__}: {error}"))
        self._socket.disable_monitor()
        for used in (self._socket, self._wakeup, self._monitor):
            used.close()
        self._context.term()

    def _serve(self) -> None:
        decoder = Decoder(EngineMessage)
        poller = zmq.Poller()
        for source in (self._socket, self._wakeup.socket, self._monitor):
            poller.register(source, zmq.POLLIN)
        self._flush()
        while not self._closing:
            ready = dict(poller.poll())
            if self._wakeup.socket in ready:
                self._wakeup.clear()
                self._flush()
            if self._socket in ready:
                self._receive(decoder)
            elif self._monitor in ready:
                recv_monitor_message(self._monitor)
                self._hear_last_words(decoder)
        while self.died is None and self._socket.poll(0):
            self._receive(decoder)
        self._flush()

    def _hear_last_words(self, decoder: Decoder) -> None:
        """Read the engine's last messages, which may have its error, after it disconnected."""
        while self.died is None and self._socket.poll(DRAIN_MS):
            self._receive(decoder)
        if self.died is None and not self._closing:
            self.fail(EngineDied(self._describe_loss()))

    def _flush(self) -> None:
        while self._outgoing:
            self._socket.send_multipart(self._outgoing.popleft())

    def _receive(self, decoder: Decoder) -> None:
        frames = self._socket.recv_multipart(copy=False)
        try:
            message, arrays = decoder.decode([frame.buffer for frame in frames])
        except ProtocolError as error:
            self.fail(EngineDied(f"the engine speaks another protocol: {error.message}"))
            return
        match message:
            case Ready():
                with self._lock:
                    self.model, self.num_ranks = message.model, message.num_ranks
                    self._lock.notify_all()
            case LoadingProgress():
                with self._lock:
                    self.loading = message
                    self._lock.notify_all()
            case EvaluationCosts():
                self.costs = message
            case NotReady():
                self.fail(message.error.exception())
            case EngineHealth():
                with self._lock:
                    self._health.append(message)
                    self._lock.notify_all()
            case Failed(error=WireError(code=EngineDied.code) as death):
                # Nothing may be sent to it from now on, though its connection still stands: what it
                # did not run would seem to have killed it.
                self.fail(death.exception())
            case RequestAccepted() | RequestProgress() | Result() | Failed():
                self._deliver(message, arrays)

    def _deliver(self, message: Any, arrays: list[Any]) -> None:
        with self._lock:
            handle = self._handles.get(message.id)
            if isinstance(message, Result | Failed):
                self._handles.pop(message.id, None)
        if handle is not None:
            handle._deliver(_event(message, arrays))


def _token(address: str) -> bytes:
    """The token of the engine at `address`; without one, an engine in a local folder gives no
    answer."""
    with contextlib.suppress(OSError):
        if address.startswith("ipc://"):
            return token_file(address).read_bytes()
    return b"\x01"  # An identity must not begin with 0.


def _event(message: Any, arrays: list[Any]) -> bool | RequestEvent:
    match message:
        case RequestProgress():
            return Update(
                message.id,
                message.step,
                message.total,
                message.queue_position,
                message.eta_s,
                arrays[0] if arrays else None,
                message.phase,
                message.runner,
                message.batch_size,
            )
        case Result():
            return Output(
                message.id,
                arrays[0],
                message.seed,
                message.fps,
                message.timings,
                message.batch_sizes,
                message.warnings,
                audio=None if message.audio_rate is None else arrays[1],
                audio_rate=message.audio_rate,
                revised_prompt=message.revised_prompt,
                prompt_notes=message.prompt_notes,
                evaluations=message.evaluations,
                usage=message.usage,
            )
        case Failed():
            return message.error.exception()
    return True
