"""Linear layers of which a rank has some outputs or some inputs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.tensor import TensorParallel
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.lora_terms import Term
from multimodal_gen.runtime.layers.products.dense import dense_product
from multimodal_gen.runtime.layers.quantized.int8 import Int8Storage
from multimodal_gen.runtime.layers.quantized.storage import KeptWeight
from multimodal_gen.runtime.layers.take import Sources
from multimodal_gen.runtime.layers.tensor_parallel.rows import resize, rows_of

log = logging.getLogger(__name__)


class ColumnLinear(Linear):
    """Outputs `own` of a layer: [..., in] -> [..., sum(own)]. Until it is loaded, it is whole."""

    def __init__(self, shape: tuple[int, ...], own: Sequence[range], *, bias: bool) -> None:
        super().__init__(shape, bias=bias)
        self.own = own

    def take(
        self, sources: Mapping[str, Sources], dtype: torch.dtype, device: torch.device
    ) -> None:
        super().take(rows_of(self, sources, self.own), dtype, device)
        if "weight" in sources:
            self.segments = tuple(sources["weight"].segments)

    def part_of(self, term: Term) -> Term | None:
        return term.outputs(self.own)


class RowLinear(Linear):
    """Inputs `own` of a layer: [..., sum(own)] -> [..., out], which is the sum over the group.

    A LoRA's part is added before the sum, and the bias once. Until it is loaded, it is whole.
    """

    def __init__(
        self, shape: tuple[int, ...], own: Sequence[range], group: TensorParallel, *, bias: bool
    ) -> None:
        super().__init__(shape, bias=bias)
        self.own = own
        self._held = own
        """Inputs of the weight that is kept: with those that share a block with its own."""
        self._group = group

    def forward(self, x: Tensor, lora: LoraRows | None = None) -> Tensor:
        return self._group.sum(super().forward(x, lora))

    def product(self, x: Tensor) -> Tensor:
        bias = self.bias if self._group.is_first else None
        if self.kept is not None:
            return self.kept.product(_spread(x, self.own, self._held), bias)
        assert self.weight is not None
        return dense_product(x, self.weight, bias, self.packed)

    def base(self, x: Tensor, rows: range) -> Tensor:
        return super().base(_spread(x, self.own, self._held) if self.kept is not None else x, rows)

    def numbers(self, rows: range) -> Tensor:
        found = super().numbers(rows)
        return found if self.own == self._held else _gathered(found, self.own, self._held)

    def total(self, sums: Tensor) -> Tensor:
        return self._group.sum(sums)

    def take(
        self, sources: Mapping[str, Sources], dtype: torch.dtype, device: torch.device
    ) -> None:
        if (whole := sources.get("weight")) is None:
            super().take(sources, dtype, device)
            return
        stored, held = whole.column_storages(self.own, self.whole, dtype, device)
        own = {} if stored else {"weight": whole.columns(self.own)}
        if stored:
            self.kept, self._held = KeptWeight(stored, dtype), held
            self.weight = None
            self._prepare(self.kept)
        else:
            resize(self, "weight", (self.whole[0], sum(map(len, self.own))))
        super().take(own | {n: each for n, each in sources.items() if n != "weight"}, dtype, device)
        self.segments = tuple(whole.segments)

    def _prepare(self, kept: KeptWeight) -> None:
        group = self._group
        for storage in kept.modules():
            if isinstance(storage, Int8Storage):
                # Not a bound method: a copy of a storage must not copy the group.
                storage.largest = lambda part: group.largest(part)
        if sum(map(len, self._held)) > sum(map(len, self.own)):
            _say_wider(kept.forms[0], kept.shape[1], self.whole[1])

    def part_of(self, term: Term) -> Term | None:
        return term.inputs(self.own, bias=self._group.is_first)


@cache
def _say_wider(form: str, held: int, whole: int) -> None:
    log.info(
        "weights in %s are shared in whole blocks: a rank holds %d of a layer's %d inputs, some of "
        "them for others",
        form,
        held,
        whole,
    )


def _spread(x: Tensor, own: Sequence[range], held: Sequence[range]) -> Tensor:
    """Inputs `own` of a layer at their places among `held`, with zeros at the others'."""
    if own == held:
        return x
    wide = x.new_zeros(*x.shape[:-1], sum(map(len, held)))
    for part, each in zip(x.split_with_sizes([*map(len, own)], dim=-1), own, strict=True):
        if each:
            wide.narrow(-1, _before(each, held), len(each)).copy_(part)
    return wide


def _gathered(numbers: Tensor, own: Sequence[range], held: Sequence[range]) -> Tensor:
    """Columns `own` of a layer of those that are held."""
    return torch.cat([numbers.narrow(-1, _before(each, held), len(each)) for each in own], dim=-1)


def _before(own: range, held: Sequence[range]) -> int:
    """Number of these columns that are before some of them."""
    return sum(min(len(kept), max(0, own.start - kept.start)) for kept in held)
