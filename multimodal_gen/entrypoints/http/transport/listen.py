"""Opens the server's listening socket."""

from __future__ import annotations

import ipaddress
import socket

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import InvalidRequest

_BACKLOG = 1024
_SILENCE_S = 60


def listen(args: ServerArgs) -> socket.socket:
    """Listen at `args.host` and `args.port`.

    Raises InvalidRequest for a name that is not known, or an address that others can reach if no
    key is set (names are resolved), OSError if the address is not available.
    """
    try:
        found = socket.getaddrinfo(
            args.host or None, args.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        allowed = f"must be an address, or the name of one: {error}"
        raise InvalidRequest("host", args.host, allowed) from error
    family, kind, protocol, _, address = found[0]
    keyless = args.api_key is None and args.api_keys_file is None
    if keyless and not ipaddress.ip_address(address[0]).is_loopback:
        allowed = "is reachable by others: set api_key or api_keys_file, or listen on 127.0.0.1"
        raise InvalidRequest("host", args.host, allowed)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _notice_the_vanished(listener)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _notice_the_vanished(listener: socket.socket) -> None:
    """Let the kernel close connections (which inherit this) whose peer is gone or reads nothing."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _SILENCE_S),
        ("TCP_KEEPINTVL", _SILENCE_S // 4),
        ("TCP_USER_TIMEOUT", 1000 * _SILENCE_S),
    ):
        if (option := getattr(socket, name, None)) is not None:
            listener.setsockopt(socket.IPPROTO_TCP, option, value)


def listener_url(listener: socket.socket) -> str:
    """Return `http://host:port` of the listener, with an IPv6 host in brackets."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
