"""LoRA for single rows of a batch (Hu et al. 2021, arXiv:2106.09685): y += scale * up(down(x)).

The model's weights stay unchanged. A layer holds its terms of all loaded LoRAs in a `LoraBank`; the
rows that use each LoRA are an argument of the evaluation, `LoraRows`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.distributed.device_copies import tensor_of


class LoraUse(NamedTuple):
    """A loaded LoRA with the scale of one request."""

    key: int
    scale: float


@dataclass(frozen=True)
class LowRank:
    """One LoRA's term for one layer's output, or for some of its channels.

    `down` has the shape of the layer's weight with `rank` outputs, `up` [channels, rank] (with a
    kernel of 1 for a convolution).
    """

    down: Tensor
    up: Tensor
    bias: Tensor | None
    scale: float
    """alpha / rank"""
    start: int
    """First output channel that it applies to."""

    @property
    def channels(self) -> int:
        return len(self.up)

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return (self.down, self.up, self.bias)

    def to(self, device: torch.device) -> LowRank:
        return replace(
            self,
            down=self.down.to(device).contiguous(),
            up=self.up.to(device).contiguous(),
            bias=_moved(self.bias, device),
        )

    def outputs(self, own: Sequence[range]) -> LowRank | None:
        """The term for a layer with these outputs of the whole one, if it changes any."""
        rows = [part for each in own if (part := _within(self, each))]
        if not rows:
            return None
        start = _place(self.start, own)
        return replace(self, up=_rows(self.up, rows), bias=_rows(self.bias, rows), start=start)

    def inputs(self, own: Sequence[range], *, bias: bool) -> LowRank:
        """The term for a layer with these inputs of the whole one, with or without the bias."""
        down = torch.cat([self.down[:, each.start : each.stop] for each in own], dim=1)
        return replace(self, down=down, bias=self.bias if bias else None)

    def product(self, x: Tensor) -> Tensor:
        """up(down(x)) of a linear layer: [..., in] -> [..., channels]."""
        return F.linear(F.linear(x, self.down.flatten(1)), self.up.flatten(1))


@dataclass(frozen=True)
class Difference:
    """One LoRA's term of full size: differences of a layer's weight and bias, or of some rows."""

    weight: Tensor | None
    bias: Tensor | None
    start: int
    scale: float = 1.0

    @property
    def channels(self) -> int:
        return next(len(tensor) for tensor in self.tensors if tensor is not None)

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return (self.weight, self.bias)

    def to(self, device: torch.device) -> Difference:
        weight, bias = _moved(self.weight, device), _moved(self.bias, device)
        return replace(self, weight=weight, bias=bias)

    def outputs(self, own: Sequence[range]) -> Difference | None:
        """See `LowRank.outputs`."""
        rows = [part for each in own if (part := _within(self, each))]
        if not rows:
            return None
        weight, bias = _rows(self.weight, rows), _rows(self.bias, rows)
        return replace(self, weight=weight, bias=bias, start=_place(self.start, own))

    def inputs(self, own: Sequence[range], *, bias: bool) -> Difference | None:
        """See `LowRank.inputs`."""
        weight, added = self.weight, self.bias if bias else None
        if weight is not None:
            weight = torch.cat([weight[:, each.start : each.stop] for each in own], dim=1)
        return None if weight is added is None else replace(self, weight=weight, bias=added)

    def product(self, x: Tensor) -> Tensor | None:
        """Product of a linear layer: [..., in] -> [..., channels]."""
        return None if self.weight is None else F.linear(x, self.weight.flatten(1))


Term = LowRank | Difference


def _within(term: Term, own: range) -> range:
    """Rows of the term for these outputs of the whole layer."""
    rows = range(own.start - term.start, own.stop - term.start)
    return range(max(0, rows.start), min(term.channels, rows.stop))


def _place(start: int, own: Sequence[range]) -> int:
    """Number of these outputs that are before output `start` of the whole layer."""
    return sum(min(len(each), max(0, start - each.start)) for each in own)


def _rows(tensor: Tensor | None, rows: Sequence[range]) -> Any:
    if tensor is None:
        return None
    return torch.cat([tensor[each.start : each.stop] for each in rows])


def _moved(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device).contiguous()


@dataclass(frozen=True)
class Lora:
    """A LoRA on the device: its terms by module."""

    terms: Mapping[nn.Module, Sequence[Term]]
    of_encoders: bool
    """True if it changes the encoding of prompts."""
    warnings: tuple[str, ...] = ()
    """What of its file has no effect."""


class RowGroup(NamedTuple):
    """Rows that use a LoRA at one scale; `rows` [n] are their indices, None means all."""

    scale: float
    rows: Tensor | None


class LoraRows:
    """LoRA use per row of a batch. An argument of an evaluation, without side effects."""

    def __init__(self, uses: Sequence[Sequence[LoraUse]], device: torch.device) -> None:
        """Row r uses `uses[r]`."""
        users: defaultdict[LoraUse, list[int]] = defaultdict(list)
        for row, of_row in enumerate(uses):
            for use in of_row:
                users[use].append(row)
        groups: defaultdict[int, list[RowGroup]] = defaultdict(list)
        for use, rows in users.items():
            which = None if len(rows) == len(uses) else tensor_of(rows, device)
            groups[use.key].append(RowGroup(use.scale, which))
        self.total = len(uses)
        self.groups: Mapping[int, Sequence[RowGroup]] = groups


class TermBank:
    """Terms of all loaded LoRAs for one module."""

    def __init__(self) -> None:
        self._terms: dict[int, Sequence[Term]] = {}

    def __len__(self) -> int:
        return len(self._terms)

    def add(self, key: int, terms: Sequence[Term]) -> None:
        self._terms[key] = terms

    def remove(self, key: int) -> None:
        """Free the terms of LoRA `key`; no effect if there are none."""
        self._terms.pop(key, None)

    def used(self, rows: LoraRows) -> Iterator[tuple[RowGroup, Term]]:
        """Terms that some rows use."""
        for key, terms in self._terms.items():
            for group in rows.groups.get(key, ()):
                for term in terms:
                    yield group, term


class LoraBank(TermBank):
    """Terms for a layer that is a product with a weight."""

    def __init__(
        self,
        product: Callable[[Term, Tensor], Tensor | None] = lambda term, x: term.product(x),
        channels: int = -1,
    ) -> None:
        """`channels` is the output dimension that a term applies to."""
        super().__init__()
        self._product = product
        self._channels = channels

    def delta(self, x: Tensor, rows: LoraRows, output: Tensor) -> None:
        """Add the rows' terms for the layer's input `x` to `output`, in place.

        The first dimension of both is the rows: [R, ...], or [R * n, ...] row by row.
        """
        for group, term in self.used(rows):
            self._add(term, x, group, rows.total, output)

    def _add(self, term: Term, x: Tensor, group: RowGroup, total: int, output: Tensor) -> None:
        output = output.narrow(self._channels, term.start, term.channels)
        scale = term.scale * group.scale
        if group.rows is None:
            if (product := self._product(term, x)) is not None:
                output.add_(product, alpha=scale)
            if term.bias is not None:
                output.add_(self._aligned(term.bias, output), alpha=scale)
            return
        if len(x) % total:
            raise RuntimeError(f"LoRA needs {total} rows, not input of shape {tuple(x.shape)}")
        rows = output.unflatten(0, (total, -1))  # [R, n, ...]
        chosen = x.unflatten(0, (total, -1))[group.rows].flatten(0, 1)
        if (product := self._product(term, chosen)) is not None:
            added = product.unflatten(0, (len(group.rows), -1))
            rows.index_add_(0, group.rows, added, alpha=scale)
        if term.bias is not None:
            added = self._aligned(term.bias, output).expand(len(group.rows), *rows.shape[1:])
            rows.index_add_(0, group.rows, added, alpha=scale)

    def _aligned(self, bias: Tensor, output: Tensor) -> Tensor:
        """A bias [channels] that is broadcast to `output`."""
        after = 0 if self._channels == -1 else output.dim() - 1 - self._channels
        return bias.view(-1, *[1] * after)
