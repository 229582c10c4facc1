"""Arguments of the HTTP server: where it listens and which hosts it talks to."""

from __future__ import annotations

import re
from dataclasses import dataclass

from multimodal_gen.configs.arguments.argument_group import ArgumentGroup

_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/?#@\s]+")


@dataclass(frozen=True, kw_only=True)
class HttpArgs(ArgumentGroup):
    host: str = "127.0.0.1"
    """Address to listen on. Other than loopback requires --api-key or --api-keys-file."""
    port: int = 30000
    """Port to listen on; 0 picks a free one."""
    client_timeout: float = 20.0
    """Maximum seconds for a request's headers, and between two pieces of its body."""
    allowed_media_hosts: tuple[str, ...] = ()
    """Hosts that image URLs can name: example.com, *.example.com; private networks: 10.0.0.0/8."""
    allowed_origins: tuple[str, ...] = ()
    """Web pages that may use the server from a browser (CORS): https://app.example.com, or *."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("must be 0 to 65535", lambda port: 0 <= port <= 65535, "port")
        self.require_seconds("client_timeout")
        self.require(
            "must be * or scheme://host[:port], without a path",
            lambda origins: all(map(_ORIGIN.fullmatch, origins)),
            "allowed_origins",
        )
