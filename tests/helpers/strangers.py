"""Clients that lack the keys of a socket, in several ways."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import zmq

from multimodal_gen.messages.links import LinkKeys, unlock

REFUSED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
)


def keys_of_strangers(keys: LinkKeys) -> dict[str, LinkKeys | None]:
    others = LinkKeys.new()
    only_public = LinkKeys(
        server_public=keys.server_public,
        client_public=others.client_public,
        client_secret=others.client_secret,
    )
    return {"no keys": None, "keys of others": others.of_client, "the public key": only_public}


@contextlib.contextmanager
def stranger(address: str, keys: LinkKeys | None, frames: list[bytes]) -> Iterator[zmq.SyncSocket]:
    """A client that has tried to send `frames`, and was refused."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.linger = 0
        if keys is not None:
            unlock(client, keys)
        monitor = client.get_monitor_socket(REFUSED)
        client.connect(address)
        client.send_multipart(frames)
        assert monitor.poll(10_000), "was not refused"
        yield client
        client.disable_monitor()
        monitor.close()


def answer_to_bytes(address: str, sent: bytes) -> bytes:
    """What a peer that speaks no ZeroMQ gets before it is disconnected."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        plain.sendall(sent)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := plain.recv(4096):
                answer += part
    return answer
