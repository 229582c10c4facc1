"""Sockets between processes, with keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import zmq

from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.links import Door, LinkKeys, beat, unlock


class Link:
    """A server that lets clients with `keys` in, and a client that knows `known`."""

    def __init__(self, keys: LinkKeys, known: LinkKeys | None) -> None:
        self.context = zmq.Context()
        self.door = Door(self.context, keys)
        self.server = self.context.socket(zmq.ROUTER)
        self.client = self.context.socket(zmq.DEALER)
        self.door.guard(self.server)
        if known is not None:
            unlock(self.client, known)
        self.refusals = self.client.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_DISCONNECTED
        )
        for socket in (self.server, self.client):
            socket.linger = 0
            beat(socket)
        port = self.server.bind_to_random_port("tcp://127.0.0.1")
        self.client.connect(f"tcp://127.0.0.1:{port}")
        self.client.send(b"hello")

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disable_monitor()
        self.door.close()
        for socket in (self.refusals, self.client, self.server):
            socket.close()
        self.context.term()


def test_a_client_with_the_keys_is_heard_and_answered():
    keys = LinkKeys.new()
    with Link(keys, keys.of_client) as link:
        assert link.server.poll(5000)
        sender, message = link.server.recv_multipart()
        link.server.send_multipart([sender, message + b" yourself"])
        assert link.client.poll(5000)
        assert link.client.recv() == b"hello yourself"


@pytest.mark.parametrize("knows", ["nothing", "server", "others"])
def test_without_the_keys_nothing_is_read(knows):
    keys, others = LinkKeys.new(), LinkKeys.new()
    wrong = {
        "nothing": None,
        "others": others.of_client,
        "server": LinkKeys(
            server_public=keys.server_public,
            client_public=others.client_public,
            client_secret=others.client_secret,
        ),
    }
    with Link(keys, wrong[knows]) as link:
        assert link.refusals.poll(5000)
        assert not link.server.poll(0)


def test_a_key_file_is_private_and_says_what_is_wrong_with_it(tmp_path: Path):
    path = tmp_path / "keys"
    keys = LinkKeys.new()
    keys.write(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert LinkKeys.read(path) == keys
    os.chmod(path, 0o640)
    with pytest.raises(InvalidRequest, match="readable by its owner only"):
        LinkKeys.read(path)
    path.write_text("{}")
    os.chmod(path, 0o600)
    with pytest.raises(InvalidRequest, match="must be a key file"):
        LinkKeys.read(path)
