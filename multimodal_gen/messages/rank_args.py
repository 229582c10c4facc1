"""Arguments of an engine's processes, sent to each on its standard input, which keeps them out of
the process list."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.messages.links import LinkKeys

LONGEST_SOCKET_NAME = len("client")
SCHEDULER_LOST = 75
"""Exit status of a rank that ended because it lost the Scheduler."""


class RankPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A rank's place: those of one host share its cores, its memory and its GPUs."""

    local_rank: int = 0
    """Number of the rank among those on its host: its GPU's."""
    local_ranks: int = 1
    """Ranks on its host; every host has as many."""
    interface: str = ""
    """Network interface towards the other hosts; empty: there are none."""


class ProcessArgs(msgspec.Struct, frozen=True, kw_only=True):
    """Arguments of the Scheduler's process and of each rank."""

    engine: EngineArgs
    ranks_address: str
    """Address at which the Scheduler meets the ranks: `ipc://` or `tcp://`."""
    socket_folder: str
    """Folder private to the user (0700) for `ipc://` sockets, the clients' token and temporary
    files; it is removed with the engine."""
    token: str = ""
    """Secret of this launch: ranks prove with it that they are of this engine."""
    keys: LinkKeys | None = None
    """Keys of `tcp://` sockets; a rank has no need of the secret of the side that binds."""


class RankArgs(ProcessArgs, frozen=True, kw_only=True):
    """Arguments of a rank."""

    rank: int
    model_folder: str
    model_file: str | None = None
    """A single weight file that replaces some of the folder's weights."""
    component_files: dict[str, str] = {}
    """Weight files that replace those of one component each."""
    model_name: str
    place: RankPlace = RankPlace()
    serves: bool = False
    """True for a server's engine, which lasts: `--compile auto` compiles."""


class SchedulerArgs(ProcessArgs, frozen=True, kw_only=True):
    """Arguments of the Scheduler's process."""

    client_address: str
    model_files: str
    """Names the checkpoint: what is measured holds for its files."""
    cache_folder: str
    """Where measured costs are kept."""
    hosts: int = 1
    """Hosts that the ranks are on."""


def client_address(socket_folder: str) -> str:
    return f"ipc://{socket_folder}/client"


def ranks_address(socket_folder: str) -> str:
    return f"ipc://{socket_folder}/ranks"


def client_token(token: str) -> bytes:
    """Prefix of a client socket's identity; it does not reveal the ranks' token."""
    return hashlib.sha256(token.encode()).hexdigest().encode() if token else b""


def token_file(address: str) -> Path:
    """File (0600) in which clients of the engine at `address` find their token."""
    return Path(address.removeprefix("ipc://")).with_name("token")


def socket_name(rank: int, use: str = "", token: str = "") -> bytes:
    """Identity of a rank's socket; plans go to the one without a `use`.

    Since it contains the launch's token, nothing else can connect under a rank's name.
    """
    return " ".join(filter(None, (str(rank), use, token))).encode()
