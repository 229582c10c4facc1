"""Position of a rank on the mesh."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


@dataclass(frozen=True)
class Mesh:
    """A rank's position on two axes: `rank == cfg_rank * ulysses_size + ulysses_rank`.

    The rows of a batch are distributed over the cfg axis; the ranks of one ulysses group share each
    row's sequence. An axis of size 1 has no process group.
    """

    rank: int = 0
    world_size: int = 1
    cfg_rank: int = 0
    cfg_size: int = 1
    ulysses_rank: int = 0
    ulysses_size: int = 1
    cfg_group: dist.ProcessGroup | None = None
    ulysses_group: dist.ProcessGroup | None = None

    @classmethod
    def create(cls, rank: int, cfg_size: int = 1, ulysses_size: int = 1) -> Mesh:
        """Create the process groups. Collective: every rank calls it with the same sizes."""
        cfg_rank, ulysses_rank = divmod(rank, ulysses_size)
        if cfg_size < 1 or ulysses_size < 1 or not 0 <= cfg_rank < cfg_size:
            raise ValueError(f"rank {rank} is not on a {cfg_size} x {ulysses_size} mesh")
        rows = [[c * ulysses_size + u for u in range(ulysses_size)] for c in range(cfg_size)]
        columns = [list(column) for column in zip(*rows, strict=True)]
        return cls(
            rank=rank,
            world_size=cfg_size * ulysses_size,
            cfg_rank=cfg_rank,
            cfg_size=cfg_size,
            ulysses_rank=ulysses_rank,
            ulysses_size=ulysses_size,
            cfg_group=_own_group(columns),
            ulysses_group=_own_group(rows),
        )


def _own_group(partition: list[list[int]]) -> dist.ProcessGroup | None:
    """Group of `partition` that contains this rank. torch requires every rank to create every
    group."""
    if len(partition) == 1:  # of all ranks: a second communicator would only take memory
        return dist.group.WORLD if len(partition[0]) > 1 else None
    own = None
    for members in partition:
        if len(members) > 1:
            group = dist.new_group(members)
            if isinstance(group, dist.ProcessGroup):  # to those outside torch gives a number
                own = group
    return own


def init_process_group(
    rank: int,
    world_size: int,
    store_path: Path,
    device: torch.device,
    timeout: timedelta,
) -> None:
    """Join the ranks of this machine: NCCL for CUDA tensors, gloo for CPU tensors.

    The rendezvous is the file `store_path`, new for each group and in a private folder, so no port
    is opened. A single rank needs no group.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world_size == 1:
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", _LOOPBACK)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", _LOOPBACK)
    # Documented, but not exported for type checkers.
    store = dist.FileStore(str(store_path), world_size)  # type: ignore[attr-defined]
    dist.init_process_group(
        backend="cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=timeout,
        device_id=device if device.type == "cuda" else None,
    )
