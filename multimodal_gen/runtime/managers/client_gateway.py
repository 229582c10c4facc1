"""Rank 0's door for clients: one ROUTER socket on a thread of its own, so that accepted, full,
cancelled and health are answered at once, even inside a long step."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import zmq

from multimodal_gen.errors import (
    EngineNotReady,
    InvalidRequest,
    MultimodalGenError,
    ProtocolError,
)
from multimodal_gen.messages.codec import MAX_CLIENT_FRAME_BYTES, Buffer, Decoder, encode
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.reply import (
    Accepted,
    ErrorInfo,
    Failed,
    Health,
    NotReady,
    Progress,
    Ready,
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

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)
SWEEP_S = 0.5
"""How often queued requests hear of their place, which also shows whose client is gone."""
RETRY_S = 0.01
"""How soon a full client is tried again."""
TELL_S = 2.0
"""How long a refusal waits for somebody to hear it."""


class RequestDesk(Protocol):
    """What the gateway asks of the Scheduler, from its own thread."""

    def submit(self, req: Req) -> bool: ...
    def cancel(self, request_id: str) -> bool: ...
    def health(self) -> Health: ...
    def progress_of(self, request_id: str) -> Progress | None: ...
    def stop(self) -> None: ...


@dataclass
class Outbox:
    """What waits for one client: results and errors all, of progress only each request's newest."""

    certain: deque[list[Buffer]] = field(default_factory=deque)
    newest: dict[str, list[Buffer]] = field(default_factory=dict)


class ClientGateway:
    """Owns the client socket. `send` may be called from any thread; the rest is its own."""

    def __init__(self, address: str) -> None:
        # Its own context: ending it waits until the last messages have left the process.
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context = context
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = 500
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_CLIENT_FRAME_BYTES)
        self._socket.bind(address)
        self._wake_receive = context.socket(zmq.PULL)
        self._wake_receive.bind("inproc://gateway")
        self._wake_send = context.socket(zmq.PUSH)
        self._wake_send.connect("inproc://gateway")
        self._lock = threading.Lock()
        self._sent: deque[tuple[str, msgspec.Struct, list[Buffer]]] = deque()
        self._outboxes: defaultdict[bytes, Outbox] = defaultdict(Outbox)
        self._owners: dict[str, bytes] = {}
        self._greeted: set[bytes] = set()
        self._ready: Ready | NotReady | None = None
        self._desk: RequestDesk | None = None
        self._stopping = False
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._run, name="client-gateway", daemon=True)
        self._thread.start()

    # -- any thread

    def open(self, desk: RequestDesk, num_ranks: int, model: ModelInfo) -> None:
        """Begin to take requests, and tell those who asked that the engine is ready."""
        with self._lock:
            self._desk = desk
            self._ready = Ready(num_ranks=num_ranks, model=model)
            self._wake_send.send(b"")

    def refuse(self, error: MultimodalGenError) -> None:
        """Tell everybody who asks that the engine can't start."""
        with self._lock:
            self._ready = NotReady(ErrorInfo.of(error))
            self._wake_send.send(b"")

    def send(
        self,
        request_id: str,
        message: Progress | msgspec.Struct,
        arrays: list[np.ndarray[Any, Any]] | None = None,
    ) -> None:
        """Send to whoever submitted the request. Anything but Progress is its end."""
        with self._lock:
            self._sent.append((request_id, message, encode(message, arrays or [])))
            self._wake_send.send(b"")

    def close(self) -> None:
        """Deliver what waits, for half a second at most, and end.

        A refusal is kept until somebody has heard it: loading may fail before anybody asks.
        """
        if isinstance(self._ready, NotReady):
            self._told.wait(TELL_S)
        with self._lock:
            self._stopping = True
            self._wake_send.send(b"")
        self._thread.join(timeout=2)
        if not self._thread.is_alive():
            self._wake_send.close(linger=0)
            self._context.term()

    # -- the gateway's thread

    def _run(self) -> None:
        decoder = Decoder(ClientMessage)
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_receive, zmq.POLLIN)
        next_sweep = time.monotonic() + SWEEP_S
        while not self._stopping:
            full = any(box.certain or box.newest for box in self._outboxes.values())
            wait = RETRY_S if full else max(0.0, next_sweep - time.monotonic())
            ready = dict(poller.poll(math.ceil(wait * 1000)))
            if self._wake_receive in ready:
                self._wake_receive.recv()
            if self._socket in ready:
                self._receive(decoder)
            if time.monotonic() >= next_sweep:
                self._sweep()
                next_sweep = time.monotonic() + SWEEP_S
            self._take_sent()
            self._greet()
            self._flush()
        self._take_sent()
        self._greet()
        self._flush()
        self._socket.close()
        self._wake_receive.close(linger=0)

    def _receive(self, decoder: Decoder) -> None:
        client, *frames = self._socket.recv_multipart()
        try:
            message, _ = decoder.decode(frames)
            self._handle(client, message)
        except MultimodalGenError as error:
            self._reply(client, Failed("", ErrorInfo.of(error)))

    def _handle(self, client: bytes, message: Any) -> None:
        match message:
            case Hello(protocol=protocol):
                if protocol != PROTOCOL_VERSION:
                    what = f"protocol {protocol}; this engine speaks {PROTOCOL_VERSION}"
                    self._reply(client, NotReady(ErrorInfo.of(ProtocolError(what))))
                else:
                    self._greeted.add(client)
            case Submit(req=req):
                self._submit(client, req)
            case Cancel(id=request_id):
                if self._desk is not None and self._owners.get(request_id) == client:
                    self._desk.cancel(request_id)
            case HealthCheck():
                empty = Health(running=0, waiting=0)
                self._reply(client, self._desk.health() if self._desk else empty)
            case Shutdown():
                if self._desk is not None:
                    self._desk.stop()

    def _submit(self, client: bytes, req: Req) -> None:
        try:
            if self._desk is None or not isinstance(self._ready, Ready):
                raise EngineNotReady("the engine is still loading")
            if self._owners.get(req.id, client) != client:
                raise InvalidRequest("id", req.id, "is another client's request")
            if not 1 <= len(req.id) <= 128:
                raise InvalidRequest("id", req.id, "must be 1 to 128 characters")
            if req.id not in self._owners:
                validate(req.params, self._ready.model)
                self._desk.submit(req)
                self._owners[req.id] = client
            self._reply(client, Accepted(req.id))
        except MultimodalGenError as error:
            self._reply(client, Failed(req.id, ErrorInfo.of(error)))

    def _sweep(self) -> None:
        if self._desk is None:
            return
        for request_id, client in self._owners.items():
            if (progress := self._desk.progress_of(request_id)) is not None:
                self._outboxes[client].newest.setdefault(request_id, encode(progress))

    def _take_sent(self) -> None:
        with self._lock:
            sent, self._sent = self._sent, deque()
        for request_id, message, frames in sent:
            client = self._owners.get(request_id)
            if client is None:
                continue
            box = self._outboxes[client]
            if isinstance(message, Progress):
                box.newest[request_id] = frames
            else:
                box.newest.pop(request_id, None)
                box.certain.append(frames)
                del self._owners[request_id]

    def _greet(self) -> None:
        if self._ready is not None:
            for client in self._greeted:
                self._reply(client, self._ready)
                self._told.set()
            self._greeted.clear()

    def _reply(self, client: bytes, message: msgspec.Struct) -> None:
        self._outboxes[client].certain.append(encode(message))

    def _flush(self) -> None:
        for client in list(self._outboxes):
            box = self._outboxes[client]
            try:
                while box.certain:
                    self._transmit(client, box.certain[0])
                    box.certain.popleft()
                while box.newest:
                    request_id = next(iter(box.newest))
                    self._transmit(client, box.newest[request_id])
                    del box.newest[request_id]
                del self._outboxes[client]
            except zmq.Again:
                continue
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                self._forget(client)

    def _transmit(self, client: bytes, frames: list[Buffer]) -> None:
        self._socket.send_multipart([client, *frames], flags=zmq.NOBLOCK, copy=len(frames) == 1)

    def _forget(self, client: bytes) -> None:
        """The client is gone: nobody waits for what it asked."""
        del self._outboxes[client]
        theirs = [request_id for request_id, owner in self._owners.items() if owner == client]
        if theirs:
            log.info("a client left; cancelling %d of its requests", len(theirs))
        for request_id in theirs:
            if self._desk is not None:
                self._desk.cancel(request_id)
