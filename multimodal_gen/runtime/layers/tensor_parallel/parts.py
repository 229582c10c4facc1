"""Layers of transformers whose heads and features are shared between ranks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from multimodal_gen.runtime.distributed.local_attention import Attention, Prefix
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.distributed.sequence import (
    Attending,
    SequenceParallel,
    make_sequence_parallel,
)
from multimodal_gen.runtime.distributed.tensor import TensorParallel
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.layers.norm import QKNorm, RMSNorm
from multimodal_gen.runtime.layers.parts import Parts, Units, units_of
from multimodal_gen.runtime.layers.tensor_parallel.linear import ColumnLinear, RowLinear
from multimodal_gen.runtime.layers.tensor_parallel.norm import SharedQKNorm, SharedRMSNorm


class TensorParts(Parts):
    """Deals the heads and features of each layer over the ranks of a group."""

    def __init__(self, sequence: SequenceParallel, group: TensorParallel) -> None:
        super().__init__(sequence)
        self._group = group

    def column(
        self, inputs: int, outputs: Sequence[int], *, unit: Units = 1, bias: bool = True
    ) -> Linear:
        own = self._group.shares(outputs, units_of(outputs, unit))
        return ColumnLinear((sum(outputs), inputs), own, bias=bias)

    def row(
        self, inputs: Sequence[int], outputs: int, *, unit: Units = 1, bias: bool = True
    ) -> Linear:
        own = self._group.shares(inputs, units_of(inputs, unit))
        return RowLinear((outputs, sum(inputs)), own, self._group, bias=bias)

    def norm(self, width: int, eps: float, *, unit: int) -> RMSNorm:
        return SharedRMSNorm(width, eps, [self._group.share(width, unit)], self._group)

    def qk_norm(self, width: int, *, unit: int | None = None) -> QKNorm:
        if unit is None:
            return super().qk_norm(width)
        own = self._group.shares((width, width), (unit, unit))
        return SharedQKNorm(width, own, self._group)

    def heads(self, count: int) -> int:
        return len(self.head_range(count))

    def head_range(self, count: int) -> range:
        return self._group.units(count)

    def whole_heads(self, x: Tensor, count: int, width: int) -> Tensor:
        return self._group.gather(x, count, width)

    def features(self, count: int) -> int:
        return len(self._group.share(count))

    def attend(
        self,
        v: Tensor,
        streams: Sequence[int],
        lengths: Tensor | None = None,
        prefix: Prefix | None = None,
    ) -> Attending:
        # All ranks that share the sequence have the same heads: there may be none.
        return super().attend(v, streams, lengths, prefix) if v.shape[2] else _NoHeads(v)


class _NoHeads:
    def __init__(self, v: Tensor) -> None:
        self._v = v

    def start(self, qk: Tensor) -> None:
        pass

    def wait(self) -> Tensor:
        return self._v.flatten(2)


def make_parts(mesh: Mesh, attention: Attention) -> Parts:
    """Create the object for this rank: the plain one if it has all heads and features."""
    sequence = make_sequence_parallel(mesh, attention)
    if mesh.tensor.group is None:
        return Parts(sequence)
    return TensorParts(sequence, TensorParallel(mesh.tensor))
