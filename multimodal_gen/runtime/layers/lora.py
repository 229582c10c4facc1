"""LoRA for single rows of a batch (Hu et al. 2021, arXiv:2106.09685): y += scale * up(down(x)).

The model's weights stay unchanged. A layer holds its terms of all loaded LoRAs in a `LoraBank`; the
rows that use each LoRA are an argument of the evaluation, `LoraRows`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.distributed.device_copies import tensor_of
from multimodal_gen.runtime.layers.lora_terms import LoraLayer, Term

_numbers = count()
_held: WeakValueDictionary[int, Any] = WeakValueDictionary()
"""Layers and rows by number: compiled graphs have them as tensors, and so hold for all."""


def numbered(each: Any) -> Tensor:
    """Number of a layer, or of rows, for operations of compiled graphs: int64 on the CPU."""
    number = next(_numbers)
    _held[number] = each
    return torch.tensor(number, device="cpu")


def held(number: Tensor) -> Any:
    """The layer or the rows of this number."""
    return _held[int(number)]


class LoraUse(NamedTuple):
    """A loaded LoRA with the scale of one request, and the part of its steps that has it."""

    key: int
    scale: float
    start: float = 0.0
    stop: float = 1.0


def uses_at(uses: Sequence[LoraUse], done: float) -> tuple[LoraUse, ...]:
    """Uses that apply when this part of the steps is done, 0 to 1."""
    return tuple(LoraUse(use.key, use.scale) for use in uses if use.start <= done < use.stop)


@dataclass(frozen=True)
class Lora:
    """A LoRA on the device: its terms by module."""

    terms: Mapping[nn.Module, Sequence[Term]]
    of_encoders: bool
    """True if it changes the encoding of prompts."""
    warnings: tuple[str, ...] = ()
    """What of its file has no effect."""

    @property
    def tensors(self) -> Iterator[Tensor]:
        for terms in self.terms.values():
            for term in terms:
                yield from term.tensors


class RowGroup(NamedTuple):
    """Rows that use a LoRA at one scale; `rows` [n] are their indices, None means all."""

    scale: float
    rows: Tensor | None


class ScaledRows(NamedTuple):
    """All rows, each with a scale of its own for a LoRA: float32 [R], 0 for rows without it."""

    scales: Tensor


class LoraRows:
    """LoRA use per row of a batch. An argument of an evaluation, without side effects."""

    def __init__(self, uses: Sequence[Sequence[LoraUse]], device: torch.device) -> None:
        """Row r uses `uses[r]`."""
        users: defaultdict[LoraUse, list[int]] = defaultdict(list)
        for row, of_row in enumerate(uses):
            for use in of_row:
                if use.scale:  # at 0 it is none, also where it sets norms
                    users[use].append(row)
        groups: defaultdict[int, list[RowGroup]] = defaultdict(list)
        for use, rows in users.items():
            which = None if len(rows) == len(uses) else tensor_of(rows, device)
            groups[use.key].append(RowGroup(use.scale, which))
        self.total = len(uses)
        self._uses, self._device = uses, device
        self.groups: Mapping[int, Sequence[RowGroup | ScaledRows]] = groups
        self.number = numbered(self).expand(len(uses))
        """See `numbered`, [R]."""

    def cut(self, rows: Sequence[int]) -> LoraRows:
        """The use of these rows alone."""
        return LoraRows([self._uses[row] for row in rows], self._device)

    @cached_property
    def scales(self) -> Mapping[int, Tensor]:
        """Scale per row of each LoRA, float32 [R]."""
        return {
            key: tensor_of(
                [sum(use.scale for use in own if use.key == key) for own in self._uses],
                self._device,
            ).float()
            for key in sorted(self.groups)
        }

    @classmethod
    def with_scales(cls, scales: Mapping[int, Tensor], total: int) -> LoraRows:
        """The use by `total` rows of low-rank LoRAs at scales that are read on the device: what an
        evaluation does then depends only on which LoRAs there are."""
        rows = cls([()] * total, torch.device("cpu"))
        rows.groups = {key: [ScaledRows(each)] for key, each in scales.items()}
        rows.scales = scales
        return rows


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

    def used(self, rows: LoraRows) -> Iterator[tuple[RowGroup | ScaledRows, Term]]:
        """Terms that some rows use."""
        for key, terms in self._terms.items():
            for group in rows.groups.get(key, ()):
                for term in terms:
                    yield group, term


class LoraBank(TermBank):
    """Terms for a layer that is a product with a weight."""

    def delta(self, layer: LoraLayer, x: Tensor, rows: LoraRows, output: Tensor) -> None:
        """Add the rows' terms for the layer's input `x` to `output`, in place.

        The first dimension of both is the rows: [R, ...], or [R * n, ...] row by row.
        """
        for group, term in self.used(rows):
            _add(term, layer, x, group, rows.total, output)


@torch.library.custom_op(
    "multimodal_gen::add_loras",
    mutates_args=("output",),
    schema="(Tensor layer, Tensor x, Tensor rows, Tensor(a!) output) -> ()",
)
def add_loras(layer: Tensor, x: Tensor, rows: Tensor, output: Tensor) -> None:
    """`LoraBank.delta` as one operation of a compiled graph, which does not depend on what LoRAs
    there are; `layer` and `rows` are numbers."""
    own = held(layer)
    own.loras.delta(own, x, held(rows[0]), output)


@add_loras.register_fake
def _(layer: Tensor, x: Tensor, rows: Tensor, output: Tensor) -> None: ...


def _add(
    term: Term,
    layer: LoraLayer,
    x: Tensor,
    group: RowGroup | ScaledRows,
    total: int,
    output: Tensor,
) -> None:
    output = output.narrow(layer.channel_dim, term.start, term.channels)
    if isinstance(group, ScaledRows):
        _add_to_all(term, layer, x, group.scales, output)
        return
    factor = term.factor(group.scale)
    if group.rows is None:
        if (product := term.product(x, layer, group.scale)) is not None:
            output.add_(product, alpha=factor)
        if term.bias is not None:
            output.add_(_aligned(term.bias, layer, output), alpha=factor)
        return
    if len(x) % total:
        raise RuntimeError(f"LoRA needs {total} rows, not input of shape {tuple(x.shape)}")
    rows = output.unflatten(0, (total, -1))  # [R, n, ...]
    chosen = x.unflatten(0, (total, -1))[group.rows].flatten(0, 1)
    if (product := term.product(chosen, layer, group.scale)) is not None:
        added = product.unflatten(0, (len(group.rows), -1))
        rows.index_add_(0, group.rows, added, alpha=factor)
    if term.bias is not None:
        added = _aligned(term.bias, layer, output).expand(len(group.rows), *rows.shape[1:])
        rows.index_add_(0, group.rows, added, alpha=factor)


def _add_to_all(term: Term, layer: LoraLayer, x: Tensor, scales: Tensor, output: Tensor) -> None:
    rows = output.unflatten(0, (len(scales), -1))  # [R, n, ...]
    factors = (scales * term.factor(1.0)).view(-1, *[1] * output.dim())
    if (product := term.product(x, layer, 1.0)) is not None:
        rows.addcmul_(product.unflatten(0, (len(scales), -1)), factors)
    if term.bias is not None:
        rows.addcmul_(_aligned(term.bias, layer, output), factors)


def _aligned(bias: Tensor, layer: LoraLayer, output: Tensor) -> Tensor:
    """A bias [channels] that is broadcast to `output`."""
    after = 0 if layer.channel_dim == -1 else output.dim() - 1 - layer.channel_dim
    return bias.view(-1, *[1] * after)
