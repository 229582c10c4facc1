"""Arguments of an engine that runs on several machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from multimodal_gen.configs.arguments.argument_group import ArgumentGroup
from multimodal_gen.errors import InvalidRequest

LauncherName = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class MachineArgs(ArgumentGroup):
    nnodes: int = 1
    """Machines that share one engine: run the same command on each, with its --node-rank. Each has
    an equal share of the --num-gpus ranks."""
    node_rank: int = 0
    """Number of this machine, from 0. Clients talk to node 0; the others wait for it."""
    dist_init_addr: str | None = None
    """HOST:PORT of node 0, where the others join it. PORT + 1 is used, too."""
    key_file: str | None = None
    """File of keys that lets machines in, equal on all; `multimodal-gen keys FILE` makes one."""
    launcher: LauncherName = "local"
    """ray: the Ray cluster of this machine runs the ranks; --dist-init-addr is not needed then."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least_1("nnodes")
        if not 0 <= self.node_rank < self.nnodes:
            allowed = f"must be 0 to {self.nnodes - 1} with nnodes={self.nnodes}"
            raise InvalidRequest("node_rank", self.node_rank, allowed)
        self.require("must be HOST:PORT, a port below 65535", _is_address, "dist_init_addr")
        if self.launcher == "ray":
            self._refuse_with_ray()
        elif self.nnodes > 1:
            self._require_way()

    def check_ranks(self, num_gpus: int) -> None:
        """Raise InvalidRequest unless every machine gets as many ranks."""
        if num_gpus % self.nnodes:
            raise InvalidRequest(
                "num_gpus", num_gpus, f"must be a multiple of nnodes={self.nnodes}"
            )

    @property
    def meeting_place(self) -> tuple[str, int]:
        """Host and port of node 0."""
        host, _, port = (self.dist_init_addr or ":0").rpartition(":")
        return host.strip("[]"), int(port)

    def _require_way(self) -> None:
        for name in ("dist_init_addr", "key_file"):
            if getattr(self, name) is None:
                raise InvalidRequest(name, None, f"must be given with nnodes={self.nnodes}")

    def _refuse_with_ray(self) -> None:
        for name in ("node_rank", "dist_init_addr"):
            if value := getattr(self, name):
                raise InvalidRequest(name, value, "must not be given with launcher=ray")


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65535
