"""The engine's client endpoint: one ROUTER socket on a thread of its own, so that accepting,
refusing, cancelling and health checks are answered at once, even during a long step."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from functools import partial
from hmac import compare_digest
from typing import Any, Protocol

import msgspec
import zmq

from multimodal_gen.errors import (
    EngineNotReady,
    InvalidRequest,
    MultimodalGenError,
    ProtocolError,
)
from multimodal_gen.messages.codec import MAX_CLIENT_FRAME_BYTES, Decoder, encode, forward
from multimodal_gen.messages.evaluation_costs import EvaluationCosts
from multimodal_gen.messages.links import Door, LinkKeys, beat, keys_for
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.reply import (
    EngineHealth,
    Failed,
    NotReady,
    Ready,
    RequestAccepted,
    RequestProgress,
    WireError,
)
from multimodal_gen.messages.request import (
    PROTOCOL_VERSION,
    Cancel,
    ClientMessage,
    HealthCheck,
    Hello,
    Req,
    Shutdown,
    Submit,
)
from multimodal_gen.messages.validation import validate
from multimodal_gen.messages.wakeup import Wakeup
from multimodal_gen.runtime.scheduler.dropped_messages import DroppedMessages
from multimodal_gen.runtime.scheduler.outbox import Frames, Outbox

log = logging.getLogger(__name__)
SWEEP_S = 0.5
"""Interval of queue position updates, which also show whether a client is gone."""
RETRY_S = 0.01
"""Delay before sending again to a client whose socket is full."""
TELL_S = 2.0
"""Time that a refusal waits for a client to receive it."""
LAST_WORDS_S = 0.5
"""Time to deliver pending messages on shutdown."""
UNREAD_MESSAGES = 100
"""Messages buffered in a client's socket; beyond that, only the newest progress is kept."""


class SchedulerApi(Protocol):
    """Methods of the Scheduler that the gateway calls, from its own thread."""

    def submit(self, req: Req, pictures: Sequence[list[zmq.Frame]]) -> None: ...
    def cancel(self, request_id: str) -> None: ...
    def health(self) -> EngineHealth: ...
    def progress_of(self, request_id: str) -> RequestProgress | None: ...
    def stop(self) -> None: ...


class ClientGateway:
    """Owns the client socket. `send` may be called from any thread; other methods have their
    threads noted below."""

    def __init__(self, address: str, token: bytes = b"", keys: LinkKeys | None = None) -> None:
        """Serve clients whose sockets' identities begin with `token`; at a `tcp://` address those
        that have the keys."""
        remote = keys_for(address, keys) is not None
        self._token = b"" if remote else token
        self._dropped = DroppedMessages("the clients' socket")
        # A context of its own: terminating it waits until the last messages were sent.
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context = context
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = int(LAST_WORDS_S * 1000)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.SNDHWM, UNREAD_MESSAGES)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_CLIENT_FRAME_BYTES)
        if remote:  # One in a local folder that is silent was stopped, and may go on.
            beat(self._socket)
        self._door = Door.before(self._socket, address, keys)
        self._socket.bind(address)
        self._wakeup = Wakeup(context, "gateway")
        self._lock = threading.Lock()
        self._sent: deque[tuple[str, msgspec.Struct, Frames]] = deque()
        self._outboxes: defaultdict[bytes, Outbox] = defaultdict(Outbox)
        self._owners: dict[str, bytes] = {}
        self._greeted: set[bytes] = set()
        self._ready: Ready | NotReady | None = None
        self._loading: LoadingProgress | None = None
        self._loading_told: LoadingProgress | None = None
        self._costs: EvaluationCosts | None = None
        self._costs_told: EvaluationCosts | None = None
        self._clients: set[bytes] = set()
        """Clients that were told that the engine is ready."""
        self._scheduler: SchedulerApi | None = None
        self._stopping = False
        self.shutdown_asked = False
        """True once a client has asked to stop the engine, perhaps before it was ready."""
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._run, name="client-gateway", daemon=True)
        self._thread.start()

    # -- any thread

    def open(self, scheduler: SchedulerApi, num_ranks: int, model: ModelInfo) -> None:
        """Start accepting requests, and send `Ready` to clients that asked for it."""
        with self._lock:
            self._scheduler = scheduler
            self._ready = Ready(num_ranks=num_ranks, model=model)
        self._wakeup.ring()

    def publish(self, costs: EvaluationCosts) -> None:
        """Tell all clients, now and later ones, how long evaluations take."""
        with self._lock:
            self._costs = costs
        self._wakeup.ring()

    def announce(self, loading: LoadingProgress) -> None:
        """Tell clients that wait for the model how far it is loaded."""
        with self._lock:
            self._loading = loading
        self._wakeup.ring()

    def refuse(self, error: MultimodalGenError) -> None:
        """Tell all clients that the engine can't start, or is lost."""
        with self._lock:
            self._ready = NotReady(WireError.of(error))
        self._wakeup.ring()

    def send(
        self,
        request_id: str,
        message: msgspec.Struct,
        bodies: Sequence[Sequence[zmq.Frame]] = (),
    ) -> None:
        """Send to the client that submitted the request, with arrays in the frames in which they
        came. Any message but RequestProgress ends it."""
        with self._lock:
            self._sent.append((request_id, message, forward(message, bodies)))
        self._wakeup.ring()

    def close(self) -> None:
        """Deliver pending messages, for at most half a second, and stop.

        A refusal is kept until a client has received it: loading may fail before any client
        connects.
        """
        if isinstance(self._ready, NotReady):
            self._told.wait(TELL_S)
        self._stopping = True
        self._wakeup.ring()
        self._thread.join(timeout=2)
        if not self._thread.is_alive():
            if self._door is not None:
                self._door.close()
            self._context.term()

    # -- the gateway's thread

    def _run(self) -> None:
        try:
            self._serve()
        except Exception:
            # Clients would wait forever for a gateway that has stopped.
            log.exception("the gateway failed")
            os._exit(70)

    def _serve(self) -> None:
        decoder = Decoder(ClientMessage)
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wakeup.socket, zmq.POLLIN)
        next_sweep = time.monotonic() + SWEEP_S
        while not self._stopping:
            wait = RETRY_S if self._outboxes else max(0.0, next_sweep - time.monotonic())
            ready = dict(poller.poll(math.ceil(wait * 1000)))
            if self._wakeup.socket in ready:
                self._wakeup.clear()
            if self._socket in ready:
                self._receive(decoder)
            if time.monotonic() >= next_sweep:
                self._sweep()
                next_sweep = time.monotonic() + SWEEP_S
            self._tell()
        end = time.monotonic() + LAST_WORDS_S
        self._tell()
        while self._outboxes and time.monotonic() < end:
            time.sleep(RETRY_S)
            self._tell()
        self._socket.close()
        self._wakeup.close()

    def _tell(self) -> None:
        self._take_sent()
        self._tell_loading()
        self._greet()
        self._tell_costs()
        self._flush()

    def _receive(self, decoder: Decoder) -> None:
        sender, *frames = self._socket.recv_multipart(copy=False)
        client = sender.bytes
        if not compare_digest(client[: len(self._token)], self._token):
            self._dropped.add("a client without the engine's token")
            return
        try:
            message, bodies = decoder.split(frames)
            self._handle(client, message, bodies)
        except Exception as error:
            self._dropped.add(str(error))
            self._reply(client, Failed("", _reason(error)))

    def _handle(self, client: bytes, message: Any, bodies: Sequence[list[zmq.Frame]]) -> None:
        match message:
            case Hello(protocol=protocol):
                if protocol != PROTOCOL_VERSION:
                    what = f"protocol {protocol}; this engine uses {PROTOCOL_VERSION}"
                    self._reply(client, NotReady(WireError.of(ProtocolError(what))))
                else:
                    self._greeted.add(client)
                    self._loading_told = None
            case Submit(req=req):
                self._submit(client, req, bodies)
            case Cancel(id=request_id):
                if self._scheduler is not None and self._owners.get(request_id) == client:
                    self._scheduler.cancel(request_id)
            case HealthCheck():
                empty = EngineHealth(running=0, waiting=0)
                self._reply(client, self._scheduler.health() if self._scheduler else empty)
            case Shutdown():
                self.shutdown_asked = True
                self._take_leave(client)
                if self._scheduler is not None:
                    self._scheduler.stop()

    def _submit(self, client: bytes, req: Req, pictures: Sequence[list[zmq.Frame]]) -> None:
        try:
            if self._scheduler is None or not isinstance(self._ready, Ready):
                raise EngineNotReady("the engine is still loading")
            if self._owners.get(req.id, client) != client:
                raise InvalidRequest("id", req.id, "belongs to another client's request")
            if not 1 <= len(req.id) <= 128:
                raise InvalidRequest("id", req.id, "must be 1 to 128 characters")
            if req.id not in self._owners:
                validate(req.params, self._ready.model, req.pictures)
                self._scheduler.submit(req, pictures)
                self._owners[req.id] = client
            self._reply(client, RequestAccepted(req.id))
        except Exception as error:
            self._reply(client, Failed(req.id, _reason(error)))

    def _take_leave(self, asked_by: bytes) -> None:
        """Tell the other clients that the engine stops, before their requests end."""
        stopped = NotReady(WireError.of(EngineNotReady("the engine was stopped")))
        for client in self._clients - {asked_by}:
            self._reply(client, stopped)

    def _sweep(self) -> None:
        if self._scheduler is None:
            return
        for request_id, client in self._owners.items():
            if (progress := self._scheduler.progress_of(request_id)) is not None:
                self._outboxes[client].put_if_none(request_id, encode(progress))

    def _take_sent(self) -> None:
        with self._lock:
            sent, self._sent = self._sent, deque()
        for request_id, message, frames in sent:
            client = self._owners.get(request_id)
            if client is None:
                continue
            box = self._outboxes[client]
            if isinstance(message, RequestProgress):
                box.put_newest(request_id, frames)
            else:
                box.put_last(request_id, frames)
                del self._owners[request_id]

    def _greet(self) -> None:
        if self._ready is None:
            return
        if isinstance(self._ready, NotReady):
            self._greeted |= self._clients
            self._clients.clear()
        for client in self._greeted:
            self._reply(client, self._ready)
            if self._costs_told is not None:
                self._reply(client, self._costs_told)
            self._told.set()
        if isinstance(self._ready, Ready):
            self._clients |= self._greeted
        self._greeted.clear()

    def _tell_loading(self) -> None:
        loading = self._loading
        if self._ready is None and loading is not None and loading is not self._loading_told:
            self._loading_told = loading
            for client in self._greeted:
                self._reply(client, loading)

    def _tell_costs(self) -> None:
        costs = self._costs
        if costs is not None and costs is not self._costs_told:
            self._costs_told = costs
            for client in self._clients:
                self._reply(client, costs)

    def _reply(self, client: bytes, message: msgspec.Struct) -> None:
        self._outboxes[client].put(encode(message))

    def _flush(self) -> None:
        for client, box in list(self._outboxes.items()):
            try:
                box.flush(partial(self._transmit, client))
                del self._outboxes[client]
            except zmq.Again:
                if box.overfull:
                    self._forget(client)
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                self._forget(client)

    def _transmit(self, client: bytes, frames: Frames) -> None:
        self._socket.send_multipart([client, *frames], flags=zmq.NOBLOCK, copy=len(frames) == 1)

    def _forget(self, client: bytes) -> None:
        """Cancel the requests of a client that is gone."""
        del self._outboxes[client]
        self._clients.discard(client)
        theirs = [request_id for request_id, owner in self._owners.items() if owner == client]
        if theirs:
            log.info("a client disconnected; cancelling %d of its requests", len(theirs))
        for request_id in theirs:
            if self._scheduler is not None:
                self._scheduler.cancel(request_id)


def _reason(error: Exception) -> WireError:
    """Turn an exception from a client's message into a reply; it never ends
    the engine."""
    if isinstance(error, MultimodalGenError):
        return WireError.of(error)
    log.error("handling a client's message failed", exc_info=error)
    return WireError.of(MultimodalGenError(f"{type(error).__name__} in the engine"))
