"""Weights of integers with a scale, and perhaps a shift, for each group of columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.quantized.storage import Storage, picked


class GroupedStorage(Storage):
    """(integer - zero) * scale + shift, with one of each for a group of columns in a row."""

    values: Tensor
    scales: Tensor
    zeros: Tensor | None
    shifts: Tensor | None

    def __init__(
        self,
        form: str,
        values: Tensor,
        scales: Tensor,
        *,
        zeros: Tensor | None = None,
        shifts: Tensor | None = None,
    ) -> None:
        """`values` [rows, columns] are int8, or uint8 [rows, columns / 2] with two signed numbers
        of 4 bits each, the first in the low bits; `scales`, `zeros` and `shifts` [rows, groups]."""
        is_packed = values.dtype == torch.uint8
        super().__init__(len(values), values.shape[1] * (2 if is_packed else 1))
        self.is_packed = is_packed
        self.form = form
        self.register_buffer("values", values)
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", zeros)
        self.register_buffer("shifts", shifts)

    @property
    def block(self) -> int:
        groups = self.scales.shape[1]
        return math.lcm(self.columns // groups if groups > 1 else 1, 2 if self.is_packed else 1)

    def cut(self, columns: Sequence[range]) -> GroupedStorage:
        group = self.columns // self.scales.shape[1]

        def of_groups(numbers: Tensor) -> Tensor:
            return numbers if numbers.shape[1] == 1 else picked(numbers, columns, group)

        return GroupedStorage(
            self.form,
            picked(self.values, columns, 2 if self.is_packed else 1),
            of_groups(self.scales),
            zeros=None if self.zeros is None else of_groups(self.zeros),
            shifts=None if self.shifts is None else of_groups(self.shifts),
        )

    def numbers(self, rows: slice | Tensor, dtype: torch.dtype) -> Tensor:
        found: Tensor = self._integers(rows).unflatten(1, (self.scales.shape[1], -1))
        if self.zeros is not None:
            found = found - self.zeros[rows].float()[:, :, None]
        found = found * self.scales[rows].float()[:, :, None]
        if self.shifts is not None:
            found += self.shifts[rows].float()[:, :, None]
        return found.flatten(1).to(dtype)

    def _integers(self, rows: slice | Tensor) -> Tensor:
        values = self.values[rows]
        if not self.is_packed:
            return values
        # Shifts of signed bytes keep the sign.
        signed = values.view(torch.int8)
        return torch.stack((signed << 4 >> 4, signed >> 4), dim=-1).flatten(1)
