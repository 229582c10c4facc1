"""Shares the heads and features of layers between ranks (Shoeybi et al. 2019, arXiv:1909.08053)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.distributed as dist
from torch import Tensor

from multimodal_gen.runtime.distributed.collectives import all_gather_shares, all_reduce
from multimodal_gen.runtime.distributed.mesh import Axis
from multimodal_gen.runtime.distributed.rows import deal

_FEATURES = 16
"""Features that are dealt together where no unit is given, for whole rows of tensor cores."""


class TensorParallel:
    """The ranks of a tensor group: each computes some units, and adds up what they contribute."""

    def __init__(self, axis: Axis) -> None:
        self._rank = axis.rank
        self._size = axis.size
        self._group = axis.group

    @property
    def is_first(self) -> bool:
        """True on the rank that adds what is to be added once."""
        return self._rank == 0

    def units(self, count: int) -> range:
        """This rank's units of `count`; may be none."""
        return deal(count, self._size)[self._rank]

    def share(self, width: int, unit: int = 1) -> range:
        """This rank's features of `width`, in whole units; may be none."""
        unit = math.gcd(width, _FEATURES) if unit == 1 else unit
        units = self.units(width // unit)
        return range(units.start * unit, units.stop * unit)

    def shares(self, widths: Sequence[int], units: Sequence[int]) -> list[range]:
        """The same for several widths, one after the other."""
        starts = [sum(widths[:i]) for i in range(len(widths))]
        owns = [self.share(width, unit) for width, unit in zip(widths, units, strict=True)]
        return [
            range(start + own.start, start + own.stop)
            for start, own in zip(starts, owns, strict=True)
        ]

    def sum(self, part: Tensor) -> Tensor:
        """Sum of the ranks' tensors, in place. All ranks get equal bits."""
        return self._reduced(part, dist.ReduceOp.SUM)

    def largest(self, part: Tensor) -> Tensor:
        """Largest of the ranks' numbers, in place."""
        return self._reduced(part, dist.ReduceOp.MAX)

    def gather(self, part: Tensor, count: int, width: int) -> Tensor:
        """All `count` units of `width` features, of which `part` [..., S] is this rank's."""
        assert self._group is not None
        counts = [len(units) * width for units in deal(count, self._size)]
        return all_gather_shares(part, counts, self._group, -1)

    def _reduced(self, part: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        assert self._group is not None
        return all_reduce(part, how, self._group)
