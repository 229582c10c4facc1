"""Terms of other forms than a product of two matrices: LoHa, LoKr and DoRA.

The first two are those of LyCORIS (Yeh et al. 2024, arXiv:2309.14859).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.layers.lora_terms import (
    Difference,
    LoraLayer,
    LowRank,
    Term,
    chosen_columns,
    chosen_rows,
)

_PIECE = 1 << 24
"""Numbers of a weight that are measured at once."""


@dataclass(frozen=True)
class Hadamard(Term):
    """LoHa: the product, element by element, of two changes of low rank."""

    downs: tuple[Tensor, Tensor]
    ups: tuple[Tensor, Tensor]
    scale: float
    start: int = 0
    bias: Tensor | None = None

    @property
    def channels(self) -> int:
        return len(self.ups[0])

    @property
    def width(self) -> int:
        return self.downs[0].shape[1]

    def dense(self) -> Tensor:
        first, second = (
            LowRank(down, up, None, 1.0, 0).dense()
            for down, up in zip(self.downs, self.ups, strict=True)
        )
        return first * second

    def product(self, x: Tensor, layer: LoraLayer, scale: float) -> Tensor:
        rank = len(self.downs[0]) * len(self.downs[1])
        inputs = self.downs[0][0].numel()
        if rank * (self.channels + inputs) > self.channels * inputs:
            return layer.multiply(self.dense(), x)
        return self._low_rank().product(x, layer, scale)

    def _low_rank(self) -> LowRank:
        """The same change as one of rank r1 * r2: products of each column with each."""
        (down, other_down), (up, other_up) = self.downs, self.ups
        return LowRank(
            (down.unsqueeze(1) * other_down.unsqueeze(0)).flatten(0, 1),
            (up.unsqueeze(2) * other_up.unsqueeze(1)).flatten(1, 2),
            None,
            self.scale,
            self.start,
        )

    def rows(self, own: Sequence[range]) -> Hadamard:
        first, second = self.ups
        return replace(self, ups=(chosen_rows(first, own), chosen_rows(second, own)))

    def columns(self, own: Sequence[range]) -> Hadamard:
        first, second = self.downs
        return replace(self, downs=(chosen_columns(first, own), chosen_columns(second, own)))


@dataclass(frozen=True)
class Kronecker(Term):
    """LoKr: each element of `first` [a, b] times `second` [c, d, ...], a block of the change.

    It is applied block by block, never put together.
    """

    first: Tensor
    second: LowRank | Difference
    scale: float
    start: int = 0
    chosen: Tensor | None = None
    """Which of the a * c outputs it has; None: all."""
    places: Tensor | None = None
    """Where its inputs are among b * d; None: all are there."""
    bias: Tensor | None = None

    @property
    def channels(self) -> int:
        return len(self.first) * self.second.channels if self.chosen is None else len(self.chosen)

    @property
    def width(self) -> int:
        whole = self.first.shape[1] * self.second.width
        return whole if self.places is None else len(self.places)

    def dense(self) -> Tensor:
        second = self.second.dense()
        whole = torch.kron(self.first.view(*self.first.shape, *[1] * (second.dim() - 2)), second)
        whole = whole if self.chosen is None else whole[self.chosen]
        return whole if self.places is None else whole[:, self.places]

    def product(self, x: Tensor, layer: LoraLayer, scale: float) -> Tensor:
        blocks = self.first.shape[1]
        if not blocks:  # a rank without inputs
            return x.new_zeros(*x.shape[:-1], self.channels)
        if self.places is not None:
            wide = x.new_zeros(*x.shape[:-1], blocks * self.second.width)
            x = wide.index_copy_(-1, self.places, x)
        if layer.channel_dim == -1:
            hidden = self._second(x.unflatten(-1, (blocks, -1)), layer)  # [..., b, c]
            output = (self.first @ hidden).flatten(-2)
        else:
            hidden = self._second(x.unflatten(1, (blocks, -1)).flatten(0, 1), layer)
            hidden = hidden.unflatten(0, (-1, blocks))  # [N, b, c, ...]
            output = torch.einsum("ab,nb...->na...", self.first, hidden).flatten(1, 2)
        return (
            output if self.chosen is None else output.index_select(layer.channel_dim, self.chosen)
        )

    def _second(self, x: Tensor, layer: LoraLayer) -> Tensor:
        product = self.second.product(x, layer, 1.0)
        assert product is not None
        return product

    def rows(self, own: Sequence[range]) -> Kronecker:
        needed, chosen = _blocks(own, self.chosen, self.second.channels)
        return replace(self, first=self.first[needed], chosen=chosen)

    def columns(self, own: Sequence[range]) -> Kronecker:
        needed, places = _blocks(own, self.places, self.second.width)
        return replace(self, first=self.first[:, needed], places=places)


@dataclass(frozen=True)
class Decomposed(Term):
    """DoRA (Liu et al. 2024, arXiv:2402.09353): the changed weight, its rows with given norms.

    The norms of W + s D are those of three sums, n0 + s n1 + s² n2, so that each row of a batch can
    have a scale s of its own. They are measured when the layer is first used, where its weight is
    on the device whatever keeps it, and quantised weights are unpacked once.
    """

    change: Term
    magnitude: Tensor
    """Norms in float32, of rows or of columns."""
    by_input: bool
    """They are those of columns, over all outputs."""
    start: int = 0
    bias: Tensor | None = None
    scale: float = 1.0
    _measured: list[Tensor] = field(default_factory=list, init=False, compare=False)

    @property
    def channels(self) -> int:
        return self.change.channels

    @property
    def width(self) -> int:
        return self.change.width

    def dense(self) -> Tensor:
        raise NotImplementedError("the change depends on the weight")

    def factor(self, scale: float) -> float:
        return 1.0

    def product(self, x: Tensor, layer: LoraLayer, scale: float) -> Tensor:
        if not self._measured:
            self._measured.append(self._measure(layer))
        n0, n1, n2 = self._measured[0]
        gain = self.magnitude / (n0 + scale * n1 + scale * scale * n2).sqrt()
        rows = range(self.start, self.start + self.channels)
        after = 0 if layer.channel_dim == -1 else x.dim() - 2
        factor = self.change.factor(scale)
        if self.by_input:
            gain = gain.repeat_interleave(x.shape[layer.channel_dim] // len(gain))
            scaled = x * _aligned(gain, after).to(x.dtype)
            base = layer.base(scaled - x, rows)
            return base.add_(self._changed(scaled, layer, scale), alpha=factor)
        gain = _aligned(gain, after)
        base = layer.base(x, rows) * (gain - 1).to(x.dtype)
        return base.addcmul_(self._changed(x, layer, scale), gain.to(x.dtype), value=factor)

    def _changed(self, x: Tensor, layer: LoraLayer, scale: float) -> Tensor:
        product = self.change.product(x, layer, scale)
        assert product is not None
        return product

    def _measure(self, layer: LoraLayer) -> Tensor:
        """The three sums [3, norms]."""
        found = []
        step = max(1, _PIECE // max(1, self.change.width))
        for at in range(0, self.channels, step):
            piece = range(at, min(at + step, self.channels))
            change = self.change.rows([piece]).dense().float() * self.change.scale
            numbers = layer.numbers(range(self.start + piece.start, self.start + piece.stop))
            own = numbers.float().view_as(change)
            sums = torch.stack((own * own, 2 * own * change, change * change))
            found.append(sums.flatten(3).sum(-1) if sums.dim() > 3 else sums)
        if self.by_input:
            return torch.stack([each.sum(1) for each in found]).sum(0)
        return layer.total(torch.cat([each.sum(2) for each in found], dim=1))

    def rows(self, own: Sequence[range]) -> Decomposed:
        if self.by_input and sum(map(len, own)) < self.channels:
            raise InvalidCheckpoint(
                "dora_scale: is for norms over all outputs, which several layers or ranks share"
            )
        magnitude = self.magnitude if self.by_input else chosen_rows(self.magnitude, own)
        return replace(self, change=self.change.rows(own), magnitude=magnitude)

    def columns(self, own: Sequence[range]) -> Decomposed:
        magnitude = chosen_rows(self.magnitude, own) if self.by_input else self.magnitude
        return replace(self, change=self.change.columns(own), magnitude=magnitude)


def _blocks(own: Sequence[range], earlier: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    """Blocks of `size` that these numbers fall in, and their places in those blocks alone."""
    index = torch.cat([torch.arange(each.start, each.stop) for each in own])
    index = index if earlier is None else earlier[index]
    needed = (index // size).unique()
    return needed, torch.searchsorted(needed, index // size) * size + index % size


def _aligned(vector: Tensor, after: int) -> Tensor:
    """A vector [channels] that is broadcast to tensors with `after` dimensions behind it."""
    return vector.view(-1, *[1] * after)
