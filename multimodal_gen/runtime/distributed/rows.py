"""Distributes the rows of a batch over the cfg axis."""

from __future__ import annotations

import itertools

from torch import Tensor

from multimodal_gen.runtime.distributed.collectives import all_gather_shares
from multimodal_gen.runtime.distributed.mesh import Mesh


def deal(rows: int, size: int) -> list[range]:
    """Split `rows` into contiguous shares for `size` ranks; lengths differ by at most one."""
    share, extra = divmod(rows, size)
    starts = [i * share + min(i, extra) for i in range(size + 1)]
    return [range(start, end) for start, end in itertools.pairwise(starts)]


def gather_rows(local: Tensor, rows: int, mesh: Mesh) -> Tensor:
    """Gather all `rows` of a batch [rows, ...] on every rank from the shares of `deal`.

    `local` is [len(share), ...]; a rank without rows passes length 0. Collective on the cfg axis;
    all of its ranks get equal bits.
    """
    if mesh.cfg.group is None or rows == 0:
        return local
    counts = [len(share) for share in deal(rows, mesh.cfg.size)]
    return all_gather_shares(local, counts, mesh.cfg.group)
