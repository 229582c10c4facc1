"""An engine on several nodes, each of which joins by itself: node 0's side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from multimodal_gen.configs.arguments.machine_args import MachineArgs
from multimodal_gen.errors import EngineDied, MultimodalGenError
from multimodal_gen.launch.launcher import Ranks
from multimodal_gen.launch.machines.desk import NodeDesk
from multimodal_gen.launch.machines.messages import NodeStart
from multimodal_gen.launch.machines.network import interface_towards, resolve, tcp_address
from multimodal_gen.launch.model_path import ModelFiles
from multimodal_gen.launch.rank_processes import RankProcesses, on_this_host
from multimodal_gen.messages.links import LinkKeys
from multimodal_gen.messages.rank_args import RankArgs, RankPlace


class JoinedLauncher:
    """Runs node 0's ranks, and lets the other nodes join."""

    def __init__(self, machines: MachineArgs, keys: LinkKeys, folder: Path) -> None:
        """Raises InvalidRequest for a host that is not known."""
        host, self._port = machines.meeting_place
        self._host = resolve("dist_init_addr", host)
        self._nnodes = machines.nnodes
        self._folder = folder
        self.ranks_address = tcp_address(self._host, self._port + 1)
        self.keys: LinkKeys | None = keys

    def start(
        self, args: RankArgs, model: ModelFiles, module: str, environment: Mapping[str, str]
    ) -> Ranks:
        count = args.engine.num_gpus // self._nnodes
        place = RankPlace(local_ranks=count, interface=interface_towards(self._host))
        own = on_this_host(msgspec.structs.replace(args, place=place), model, self._folder)
        # The folders need not be there on other nodes, so they can't be checked with the others.
        engine = replace(
            args.engine, lora_dir=None, control_dir=None, upscaler_dir=None, prompt_enhancer=None
        )
        start = NodeStart(
            args=msgspec.structs.replace(args, engine=engine, place=place),
            lora_dir=args.engine.lora_dir,
            control_dir=args.engine.control_dir,
            module=module,
        )
        address = tcp_address(self._host, self._port)
        assert self.keys is not None
        desk = NodeDesk(address, self.keys, self._nnodes, start)
        try:
            return _JoinedRanks(RankProcesses(own, range(count), module, environment), desk)
        except BaseException:
            desk.close("node 0 could not start its ranks", again=False)
            raise


class _JoinedRanks:
    """The ranks of node 0, and those of the others behind the desk."""

    def __init__(self, own: RankProcesses, desk: NodeDesk) -> None:
        self._own = own
        self._desk = desk

    @property
    def pids(self) -> list[int]:
        return self._own.pids

    def any_ended(self) -> bool:
        return self._desk.how_ended is not None or self._own.any_ended()

    def all_ended(self) -> bool:
        return self._own.all_ended()

    def how_ended(self) -> str | None:
        return self._own.how_ended() or self._desk.how_ended

    def kill(self, error: MultimodalGenError | None) -> None:
        try:
            reason = "" if error is None else error.message
            self._desk.close(reason, again=isinstance(error, EngineDied))
        finally:
            self._own.kill(error)
