"""A connection to an engine that runs elsewhere; the engine here is a socket."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import zmq
from http_serving import MODEL

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.arguments.machine_args import MachineArgs
from multimodal_gen.errors import InvalidRequest, MultimodalGenError
from multimodal_gen.launch.machines import standalone
from multimodal_gen.launch.remote_engine import RemoteEngine
from multimodal_gen.messages.codec import encode
from multimodal_gen.messages.links import Door, LinkKeys, beat
from multimodal_gen.messages.reply import Ready


class Heard:
    """A Watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.events: queue.Queue[str] = queue.Queue()

    def engine_loading(self, progress: Any) -> None: ...

    def engine_up(self, client: SchedulerClient) -> None:
        assert client.model is not None
        self.events.put(f"up {client.model.name}")

    def engine_lost(self, error: MultimodalGenError) -> None:
        self.events.put(error.message)

    def engine_failed(self, error: MultimodalGenError, *, for_good: bool) -> None:
        self.events.put(f"failed {error.message}")

    def next(self) -> str:
        return self.events.get(timeout=30)


@contextmanager
def engine_at(address: str, keys: LinkKeys) -> Iterator[None]:
    """Answers each client that it is ready."""
    stop = threading.Event()
    context = zmq.Context()
    door = Door(context, keys)
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    beat(socket)
    door.guard(socket)
    socket.bind(address)

    def answer() -> None:
        while not stop.is_set():
            if socket.poll(20):
                client, *_ = socket.recv_multipart()
                socket.send_multipart([client, *encode(Ready(num_ranks=1, model=MODEL))])
        socket.close()
        door.close()
        context.term()

    thread = threading.Thread(target=answer)
    thread.start()
    yield
    stop.set()
    thread.join()


def free_address() -> str:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        return f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"


def test_it_waits_for_an_engine_and_connects_again_to_one_that_was_lost() -> None:
    heard, keys, address = Heard(), LinkKeys.new(), free_address()
    remote = RemoteEngine(address, keys.of_client, heard)
    try:
        for _ in range(2):
            with pytest.raises(queue.Empty):
                heard.events.get(timeout=0.1)
            with engine_at(address, keys):
                assert heard.next() == "up owner/name"
            assert heard.next() == f"the connection to {address} was lost"
    finally:
        remote.close()
    assert heard.events.empty()


def test_without_the_keys_nothing_is_heard() -> None:
    stranger, friend, keys, address = Heard(), Heard(), LinkKeys.new(), free_address()
    with engine_at(address, keys):
        without = RemoteEngine(address, LinkKeys.new().of_client, stranger)
        has_keys = RemoteEngine(address, keys.of_client, friend)
        assert friend.next() == "up owner/name"
        without.close()
        has_keys.close()
    assert not any(event.startswith("up") for event in [*stranger.events.queue])


def test_an_address_that_another_program_listens_on_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InvalidRequest, match="listened on: Address already in use"):
            standalone.run(EngineArgs(), MachineArgs(key_file="engine.key"), listen)
