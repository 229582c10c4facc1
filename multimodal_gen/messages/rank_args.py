"""Arguments sent to a rank on its standard input, which keeps them out of the process list."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from multimodal_gen.configs.arguments.engine_args import EngineArgs

LONGEST_SOCKET_NAME = len("client")


class RankPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where a rank runs: those of one host share its cores, its memory and its GPUs."""

    local_rank: int = 0
    """Number of the rank among those on its host: its GPU's."""
    local_ranks: int = 1
    """Ranks on its host; every host has as many."""
    interface: str = ""
    """Network interface towards the other hosts; empty: there are none."""


class RankArgs(msgspec.Struct, frozen=True, kw_only=True):
    rank: int
    engine: EngineArgs
    model_folder: str
    model_file: str | None = None
    """A single weight file that replaces some of the folder's weights."""
    component_files: dict[str, str] = {}
    """Weight files that replace those of one component each."""
    model_name: str
    socket_folder: str
    """Folder private to the user (0700) for the client socket, the ranks' socket,
    the clients' token and temporary files; it is removed with the engine."""
    cache_folder: str
    place: RankPlace = RankPlace()
    token: str = ""
    """Secret of this launch: ranks prove with it that they are of this engine."""

    @property
    def client_address(self) -> str:
        return client_address(self.socket_folder)

    @property
    def ranks_address(self) -> str:
        return f"ipc://{self.socket_folder}/ranks"


def client_address(socket_folder: str) -> str:
    return f"ipc://{socket_folder}/client"


def client_token(token: str) -> bytes:
    """Prefix of a client socket's identity; it does not reveal the ranks' token."""
    return hashlib.sha256(token.encode()).hexdigest().encode() if token else b""


def token_file(address: str) -> Path:
    """File (0600) in which clients of the engine at `address` find their token."""
    return Path(address.removeprefix("ipc://")).with_name("token")
