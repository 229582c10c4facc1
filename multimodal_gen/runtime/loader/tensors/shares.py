"""Rows and columns of tensors that one rank reads of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multimodal_gen.runtime.loader.tensors.stored import Rearranged, Span, Stored, spans_of


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of a matrix, side by side."""

    origin: Stored
    own: Sequence[range]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.origin.shape[0], sum(map(len, self.own))

    @property
    def dtype(self) -> str:
        return self.origin.dtype

    @property
    def computed(self) -> bool:
        return self.origin.computed

    def rows(self, start: int, stop: int) -> Tensor:
        found = self.origin.rows(start, stop)
        return torch.cat([found[:, each.start : each.stop] for each in self.own], dim=1)


def columns_of(tensor: Stored, own: Sequence[range]) -> Stored:
    """Columns of a matrix."""
    spans = [Span(Columns(each.origin, own), each.start, each.stop) for each in spans_of(tensor)]
    return Rearranged(tuple(spans), (tensor.shape[0], sum(map(len, own))))


def rows_of(tensor: Stored, own: Sequence[range]) -> Stored | None:
    """Rows of a tensor, which may begin before or end after it; None if there are none."""
    spans = []
    for rows in own:
        first, last = max(0, rows.start), min(tensor.shape[0], rows.stop)
        if first < last:
            spans.append(Span(tensor, first, last))
    if not spans:
        return None
    count = sum(span.stop - span.start for span in spans)
    return Rearranged(tuple(spans), (count, *tensor.shape[1:]))
