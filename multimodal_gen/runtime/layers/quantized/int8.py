"""Weights of 8-bit integers with a scale per row, or one for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.quantized.int8_product import (
    UNIT,
    has_int8_product,
    int8_product,
)
from multimodal_gen.runtime.layers.quantized.kitchen import kitchen_product
from multimodal_gen.runtime.layers.quantized.storage import Storage, picked

_UNIT = 16
"""Columns that are kept together, for devices that multiply so many at least."""


class Int8Storage(Storage):
    """Integers [rows, columns] times scales [rows, 1] or [1, 1].

    If `quantizes_inputs`, then each row of the inputs is quantised as well, to the range of its
    largest number, where the device multiplies such integers faster than it does floats.
    """

    form = "int8"
    values: Tensor
    scales: Tensor

    def __init__(self, values: Tensor, scales: Tensor, *, quantizes_inputs: bool) -> None:
        super().__init__(*values.shape)
        self.quantizes_inputs = quantizes_inputs
        self.largest: Callable[[Tensor], Tensor] = lambda own: own
        """Largest magnitudes of whole inputs [tokens, 1], given those of the columns here."""
        self.register_buffer("values", values)
        self.register_buffer("scales", scales)

    def numbers(self, rows: slice | Tensor, dtype: torch.dtype) -> Tensor:
        scales = self.scales if len(self.scales) == 1 else self.scales[rows]
        return (self.values[rows] * scales).to(dtype)

    @property
    def block(self) -> int:
        # All ranks must have the product of integers or none, as they agree on its inputs' scale.
        unit = math.gcd(self.columns, _UNIT)
        return self.columns if unit % UNIT else unit

    def cut(self, columns: Sequence[range]) -> Int8Storage:
        values = picked(self.values, columns)
        return Int8Storage(values, self.scales, quantizes_inputs=self.quantizes_inputs)

    @property
    def unpacks(self) -> bool:
        return not (self.quantizes_inputs and has_int8_product(self.values))

    def product(self, x: Tensor) -> Tensor:
        if self.unpacks:
            return super().product(x)
        found = kitchen_product(x, self.values, self.scales)
        if found is not None:
            return found
        return int8_product(x, self.values, self.scales, self.largest)
