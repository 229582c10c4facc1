"""Position of a rank on the mesh."""

from __future__ import annotations

import itertools
import math
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from multimodal_gen.runtime.distributed.link_store import Store

_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


@dataclass(frozen=True)
class Axis:
    """A rank's position among the ranks that share one kind of work."""

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None
    """None if the axis has size 1."""


@dataclass(frozen=True)
class Mesh:
    """A rank's position on four axes, the outermost first: the ranks of an inner axis are next to
    each other, and so have the fastest links.

    The rows of a batch are distributed over `cfg`. Each row's sequence is shared over `sequence`,
    which is `ring` times `ulysses`; heads and features of layers are shared over `tensor`.
    """

    rank: int = 0
    world_size: int = 1
    cfg: Axis = Axis()
    ring: Axis = Axis()
    ulysses: Axis = Axis()
    tensor: Axis = Axis()
    sequence: Axis = Axis()
    """`sequence.rank == ring.rank * ulysses.size + ulysses.rank`"""

    @classmethod
    def create(
        cls, rank: int, *, cfg: int = 1, ring: int = 1, ulysses: int = 1, tensor: int = 1
    ) -> Mesh:
        """Create the process groups. Collective: every rank calls it with the same sizes."""
        sizes = (cfg, ring, ulysses, tensor)
        world_size = math.prod(sizes)
        if min(sizes) < 1 or not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not on a mesh of {' x '.join(map(str, sizes))}")
        rows, *(rings, heads), features = (_axis(rank, sizes, (i,)) for i in range(4))
        sequence = rings if ulysses == 1 else heads
        if ring > 1 and ulysses > 1:
            sequence = _axis(rank, sizes, (1, 2))
        return cls(rank, world_size, rows, rings, heads, features, sequence)


def _axis(rank: int, sizes: Sequence[int], dims: Sequence[int]) -> Axis:
    """This rank's position along `dims` of a mesh of `sizes`, among ranks that differ only
    there."""
    members: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for other, place in enumerate(itertools.product(*map(range, sizes))):
        members[tuple(at for dim, at in enumerate(place) if dim not in dims)].append(other)
    partition = list(members.values())
    own = next(ranks for ranks in partition if rank in ranks)
    return Axis(own.index(rank), len(own), _own_group(partition))


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
    store: Store,
    device: torch.device,
    timeout: timedelta,
    interface: str = "",
) -> None:
    """Join the other ranks: NCCL for CUDA tensors, gloo for CPU tensors.

    `store` is new for each group. Ranks exchange tensors over the network interface `interface`,
    by default the one that leads nowhere but to this machine.
    """
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface or _LOOPBACK)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", interface or _LOOPBACK)
    dist.init_process_group(
        backend="cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=timeout,
        device_id=device if device.type == "cuda" else None,
    )
