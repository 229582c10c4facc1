"""Launchers of an engine's ranks: on this host, on several nodes that join, or in a
Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.arguments.machine_args import MachineArgs
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.errors import InvalidRequest, MultimodalGenError
from multimodal_gen.launch.model_path import ModelFiles
from multimodal_gen.launch.rank_processes import RankProcesses, on_this_host
from multimodal_gen.messages.links import LinkKeys
from multimodal_gen.messages.rank_args import RankArgs, ranks_address


class Ranks(Protocol):
    """All ranks of one engine, wherever they run."""

    @property
    def pids(self) -> list[int]:
        """Process ids of those on this host, in rank order."""

    def any_ended(self) -> bool:
        """True if a rank has ended, or can't be reached."""

    def all_ended(self) -> bool:
        """True if none of this host is left, and the others have been told."""

    def how_ended(self) -> str | None:
        """End of the first one; None if none did, or only after the Scheduler."""

    def kill(self, error: MultimodalGenError | None) -> None:
        """End all, and wait until those of this host have. `error`: why, unless the engine was
        stopped. May be called again."""


class Launcher(Protocol):
    """Starts the ranks of one engine."""

    ranks_address: str
    """Where the Scheduler meets them."""
    keys: LinkKeys | None
    """For links over TCP."""

    def start(
        self, args: RankArgs, model: ModelFiles, module: str, environment: Mapping[str, str]
    ) -> Ranks:
        """Start the ranks, each running `module`, and return at once.

        `args` has what is the same for all of them; `model` are this host's files, and
        `environment` has the engine's share of this host.
        """


def launcher_for(args: EngineArgs, machines: MachineArgs, folder: Path) -> Launcher:
    """The launcher that `machines` ask for. Raises InvalidRequest.

    `folder` is this host's own, for sockets.
    """
    machines.check_ranks(args.num_gpus)
    keys = None if machines.key_file is None else server_keys(machines.key_file)
    if machines.launcher == "ray":
        from multimodal_gen.launch.machines.ray_launcher import RayLauncher

        return RayLauncher(machines.nnodes, keys or LinkKeys.new())
    if machines.nnodes > 1:
        from multimodal_gen.launch.machines.joined_launcher import JoinedLauncher

        assert keys is not None
        return JoinedLauncher(machines, keys, folder)
    return LocalLauncher(keys, folder)


def server_keys(file: str) -> LinkKeys:
    """The keys of the side that listens. Raises InvalidRequest."""
    keys = LinkKeys.read(user_path(file))
    if not keys.server_secret:
        raise InvalidRequest("key_file", file, "is for the sides that connect; this one listens")
    return keys


class LocalLauncher:
    """Ranks are processes on this host."""

    def __init__(self, keys: LinkKeys | None, folder: Path) -> None:
        self.keys = keys
        self._folder = folder
        self.ranks_address = ranks_address(str(folder))

    def start(
        self, args: RankArgs, model: ModelFiles, module: str, environment: Mapping[str, str]
    ) -> Ranks:
        own = on_this_host(args, model, self._folder)
        return RankProcesses(own, range(args.engine.num_gpus), module, environment)
