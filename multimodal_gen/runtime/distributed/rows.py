"""Dealing the rows of a batch over the cfg axis."""

from __future__ import annotations

import itertools

from torch import Tensor

from multimodal_gen.runtime.distributed.collectives import all_gather_shares
from multimodal_gen.runtime.distributed.mesh import Mesh


def deal(rows: int, size: int) -> list[range]:
    """Contiguous shares of `rows` for `size` ranks, their lengths at most one apart."""
    share, extra = divmod(rows, size)
    starts = [i * share + min(i, extra) for i in range(size + 1)]
    return [range(start, end) for start, end in itertools.pairwise(starts)]


def gather_rows(local: Tensor, rows: int, mesh: Mesh) -> Tensor:
    """All `rows` of a batch [rows, ...] on every rank, each having computed those dealt to it.

    `local` is [len(share), ...]; a rank without rows joins with length 0. Collective on the cfg
    axis; the result has equal bits on all of its ranks.
    """
    if mesh.cfg_group is None or rows == 0:
        return local
    counts = [len(share) for share in deal(rows, mesh.cfg_size)]
    return all_gather_shares(local, counts, mesh.cfg_group)
