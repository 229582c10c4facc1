"""Weights that are applied element by element, and that LoRAs may change for single rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.layers.lora import LoraRows, RowGroup, TermBank, held, numbered
from multimodal_gen.runtime.layers.lora_terms import Difference, Term
from multimodal_gen.runtime.layers.take import Segment, Sources, take_parameters


class DifferenceBank(TermBank):
    """Differences of all loaded LoRAs to the parameters of one module."""

    def __init__(self) -> None:
        super().__init__()
        self.number = numbered(self)

    def value(self, name: str, own: Tensor, rows: LoraRows | None) -> Tensor:
        """Parameter `name`, which is `own` [*shape]; [R, 1, *shape] if some rows differ."""
        if rows is not None and torch.compiler.is_compiling():
            found: Tensor = with_loras(self.number, own, name, rows.number)
            return found
        used = [] if rows is None else [*self.used(rows)]
        if rows is None or not used:
            return own
        value = own.expand(rows.total, 1, *own.shape).clone()
        for group, term in used:
            assert isinstance(term, Difference)
            assert isinstance(group, RowGroup)
            difference = term.weight if name == "weight" else term.bias
            if difference is None:
                continue
            part = value.narrow(2, term.start, len(difference))
            if group.rows is None:
                part.add_(difference, alpha=group.scale)
            else:
                added = difference.expand(len(group.rows), 1, *difference.shape)
                part.index_add_(0, group.rows, added, alpha=group.scale)
        return value


@torch.library.custom_op(
    "multimodal_gen::with_loras",
    mutates_args=(),
    schema="(Tensor bank, Tensor own, str name, Tensor rows) -> Tensor",
)
def with_loras(bank: Tensor, own: Tensor, name: str, rows: Tensor) -> Tensor:
    """`DifferenceBank.value` for each of the rows, [R, 1, *shape], as one operation of a compiled
    graph: see `add_loras`."""
    value: Tensor = held(bank).value(name, own, held(rows[0]))
    return value if value is not own else own.expand(len(rows), 1, *own.shape).clone()


@with_loras.register_fake
def _(bank: Tensor, own: Tensor, name: str, rows: Tensor) -> Tensor:
    return own.new_empty(rows.shape[0], 1, *own.shape)


class Elementwise(nn.Module):
    """A module with a weight, and perhaps a bias, of this kind."""

    segments: Sequence[Segment] = ()
    """Source tensors of the checkpoint for the weight's elements."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.whole = torch.Size(shape)
        """Shape of the weight in a checkpoint, of which a rank may hold a part."""
        self.weight = nn.Parameter(torch.empty(shape))
        self.loras = DifferenceBank()

    def weight_of(self, lora: LoraRows | None) -> Tensor:
        """The weight [*shape], or [R, 1, *shape] if some rows differ."""
        return self.loras.value("weight", self.weight, lora)

    def take(
        self, sources: Mapping[str, Sources], dtype: torch.dtype, device: torch.device
    ) -> None:
        take_parameters(self, sources, dtype, device)
        if "weight" in sources:
            self.segments = tuple(sources["weight"].segments)

    def part_of(self, term: Term) -> Term | None:
        """This rank's part of a LoRA's term for the whole weight, if it has one."""
        return term


class VectorTable(Elementwise):
    """Vectors [1, N, D] that are added to those of each row."""

    def forward(self, lora: LoraRows | None = None) -> Tensor:
        """The vectors [1, N, D], or [R, 1, N, D] if some rows differ."""
        weight = self.weight_of(lora)
        return weight if weight.dim() == self.weight.dim() else weight.squeeze(2)
