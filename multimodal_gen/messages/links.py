"""Sockets between processes: heartbeats on all of them, CURVE keys on those over TCP.

An `ipc://` socket lies in a private folder. A `tcp://` socket is encrypted and open only to those
who have the keys of the engine (RFC 26, CurveZMQ): nothing is read from anyone else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import zmq

from multimodal_gen.errors import InvalidRequest

HEARTBEAT_S = 0.25
SILENCE_S = 2.0
"""Time without an answer to a heartbeat until a peer counts as gone. libzmq's own thread answers,
so a busy process is not a silent one."""
PROBE = b""
"""A message without a meaning: whether it can be sent shows whether there is a connection."""
_DOMAIN = "multimodal-gen"


class LinkKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of one engine's links: those of the side that binds, and those of all that connect."""

    server_public: str
    client_public: str
    client_secret: str
    server_secret: str = ""
    """Empty on the sides that connect, which don't need it."""

    @classmethod
    def new(cls) -> LinkKeys:
        (server, server_secret), (client, client_secret) = zmq.curve_keypair(), zmq.curve_keypair()
        return cls(
            server_public=server.decode(),
            server_secret=server_secret.decode(),
            client_public=client.decode(),
            client_secret=client_secret.decode(),
        )

    @classmethod
    def read(cls, path: Path) -> LinkKeys:
        """Read a key file. Raises InvalidRequest if it is none, or if others may read it."""
        try:
            if path.stat().st_mode & 0o077:
                raise InvalidRequest("key_file", str(path), "must be readable by its owner only")
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as error:
            raise InvalidRequest("key_file", str(path), f"must be a key file: {error}") from error

    def write(self, path: Path) -> None:
        """Create a key file (0600). Raises OSError, also if there is a file."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self)) + b"\n")

    @property
    def of_client(self) -> LinkKeys:
        """Without the secret of the side that binds."""
        return msgspec.structs.replace(self, server_secret="")


def beat(socket: zmq.Socket[Any], silence_s: float = SILENCE_S) -> None:
    """Exchange heartbeats with the peers of `socket`; one that is silent is disconnected."""
    socket.setsockopt(zmq.HEARTBEAT_IVL, int(HEARTBEAT_S * 1000))
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, int(silence_s * 1000))


def keys_for(address: str, keys: LinkKeys | None) -> LinkKeys | None:
    """The keys of a socket at `address`, None for `ipc://`. Raises InvalidRequest if there are none
    for a `tcp://` socket."""
    if not address.startswith("tcp://"):
        return None
    if keys is None:
        raise InvalidRequest("address", address, "needs keys, as all tcp:// addresses do")
    return keys


class Door:
    """Lets those who have the client's keys connect to sockets of a context."""

    def __init__(self, context: zmq.Context[Any], keys: LinkKeys) -> None:
        # Imported here: it loads asyncio, 9 MB that no local socket needs.
        from zmq.auth.thread import ThreadAuthenticator

        self._keys = keys
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(_DOMAIN, self)

    def callback(self, domain: str, key: bytes) -> bool:
        """True if a client with this public key may connect."""
        return key.decode() == self._keys.client_public

    @classmethod
    def before(cls, socket: zmq.Socket[Any], address: str, keys: LinkKeys | None) -> Door | None:
        """Guard a socket that is going to bind `address`, if that is one that needs it."""
        if (needed := keys_for(address, keys)) is None:
            return None
        door = cls(socket.context, needed)
        door.guard(socket)
        return door

    def guard(self, socket: zmq.Socket[Any]) -> None:
        """Only for those with keys; call it before binding."""
        socket.curve_server = True
        socket.curve_publickey = self._keys.server_public.encode()
        socket.curve_secretkey = self._keys.server_secret.encode()
        socket.zap_domain = _DOMAIN.encode()

    def close(self) -> None:
        self._authenticator.stop()


def unlock(socket: zmq.Socket[Any], keys: LinkKeys) -> None:
    """Use `keys` on a socket that is going to connect."""
    socket.curve_serverkey = keys.server_public.encode()
    socket.curve_publickey = keys.client_public.encode()
    socket.curve_secretkey = keys.client_secret.encode()
