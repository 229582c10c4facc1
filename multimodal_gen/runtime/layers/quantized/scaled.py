"""Weights of narrow floating-point numbers with scales: float8, MXFP8 and NVFP4."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.quantized.block_scales import BlockScales, as_bytes
from multimodal_gen.runtime.layers.quantized.float8_product import (
    WEIGHTS,
    float8_product,
    has_float8_product,
)
from multimodal_gen.runtime.layers.quantized.storage import Storage, picked

_CHUNK = {"cpu": 1 << 18}
"""Numbers computed at a time in float32: what fits into a cache of a CPU."""
_CHUNK_OF_DEVICES = 1 << 24
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


class ScaledStorage(Storage):
    """Floating-point numbers [rows, columns], times a factor, times scales of blocks."""

    values: Tensor
    factor: Tensor | None
    scales: BlockScales | None
    smoothing: Tensor | None
    per_byte = 1

    def __init__(
        self,
        form: str,
        values: Tensor,
        *,
        factor: Tensor | None = None,
        scales: BlockScales | None = None,
        smoothing: Tensor | None = None,
        rounds_inputs: bool = False,
    ) -> None:
        """`factor` is a number; `smoothing` [columns] are factors of the layer's inputs.

        `rounds_inputs`: inputs may be rounded to float8, where products with such are faster.
        """
        super().__init__(len(values), values.shape[1] * self.per_byte)
        self.form = form
        self.rounds_inputs = rounds_inputs
        self.dtype = values.dtype
        self.scales = scales
        self.register_buffer("values", as_bytes(values))
        self.register_buffer("factor", factor)
        self.register_buffer("smoothing", smoothing)

    @property
    def block(self) -> int:
        width = 1 if self.scales is None or self.scales.is_by_row else self.scales.block[1]
        return math.lcm(self.per_byte, width)

    def cut(self, columns: Sequence[range]) -> ScaledStorage:
        scales, smoothing = self.scales, self.smoothing
        return self._like(
            picked(self.values, columns, self.per_byte).view(self.dtype),
            scales=None if scales is None else scales.cut(columns, self.rows),
            smoothing=None if smoothing is None else picked(smoothing[None], columns)[0],
        )

    def _like(
        self, values: Tensor, *, scales: BlockScales | None, smoothing: Tensor | None
    ) -> ScaledStorage:
        return ScaledStorage(
            self.form,
            values,
            factor=self.factor,
            scales=scales,
            smoothing=smoothing,
            rounds_inputs=self.rounds_inputs,
        )

    def numbers(self, rows: slice | Tensor, dtype: torch.dtype) -> Tensor:
        count = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        found = self.values.new_empty(count, self.columns, dtype=dtype)
        chunk = _CHUNK.get(found.device.type, _CHUNK_OF_DEVICES)
        step = max(1, chunk // self.columns)
        for start in range(0, count, step):
            stop = min(start + step, count)
            found[start:stop] = self._scaled(_part(rows, start, stop))
        return found

    @property
    def unpacks(self) -> bool:
        by_row = self.scales is None or self.scales.block == (1, self.columns)
        rounds = self.rounds_inputs and self.dtype == WEIGHTS and by_row
        return not (rounds and has_float8_product(self.values))

    def product(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32 or self.unpacks:
            return super().product(x)
        if self.smoothing is not None:
            x = x * self.smoothing
        return float8_product(x, self.values.view(self.dtype), self._row_scales())

    def _row_scales(self) -> Tensor:
        """Scales [rows, 1]."""
        if self.scales is not None:
            scales = self.scales.of(slice(0, self.rows))
        else:
            scales = torch.ones(self.rows, 1, device=self.values.device)
        return scales if self.factor is None else scales * self.factor

    def _scaled(self, rows: slice | Tensor) -> Tensor:
        values = self._as_float32(self.values[rows])
        if self.scales is not None:
            scales, width = self.scales.of(rows), self.scales.block[1]
            if self.columns % width:
                values *= scales.repeat_interleave(width, dim=1)[:, : self.columns]
            else:
                values.unflatten(1, (-1, width)).mul_(scales[:, :, None])
        for factor in (self.factor, self.smoothing):
            if factor is not None:
                values *= factor
        return values

    def _as_float32(self, values: Tensor) -> Tensor:
        """A new tensor of these numbers."""
        if values.device.type == "cpu" and values.dtype == torch.uint8:
            numbers = _numbers_of_bytes(self.dtype).index_select(0, values.flatten().int())
            return numbers.view(values.shape)
        return values.view(self.dtype).to(torch.float32, copy=True)


@cache
def _numbers_of_bytes(dtype: torch.dtype) -> Tensor:
    """Numbers that bytes stand for: on a CPU, looking it up takes a fifth of the time of a cast."""
    return torch.arange(256, dtype=torch.uint8).view(dtype).float()


class Float4Storage(ScaledStorage):
    """Numbers of 4 bits (E2M1), two in a byte: NVFP4."""

    pairs: Tensor
    """The two numbers, as float32, that each byte stands for: 64 bits."""
    per_byte = 2

    def __init__(
        self,
        form: str,
        values: Tensor,
        *,
        high_first: bool,
        factor: Tensor | None = None,
        scales: BlockScales | None = None,
        smoothing: Tensor | None = None,
    ) -> None:
        """`high_first`: the first number of a pair is in the high bits of the byte."""
        super().__init__(form, values, factor=factor, scales=scales, smoothing=smoothing)
        self.high_first = high_first
        e2m1 = torch.tensor([*_E2M1, *(-number for number in _E2M1)])
        pairs = torch.cartesian_prod(e2m1, e2m1)  # [256, 2]: high, low
        pairs = pairs if high_first else pairs.flip(1).contiguous()
        self.register_buffer("pairs", pairs.view(torch.int64).squeeze(1).to(values.device))

    def _like(
        self, values: Tensor, *, scales: BlockScales | None, smoothing: Tensor | None
    ) -> Float4Storage:
        return Float4Storage(
            self.form,
            values,
            high_first=self.high_first,
            factor=self.factor,
            scales=scales,
            smoothing=smoothing,
        )

    def _as_float32(self, values: Tensor) -> Tensor:
        pairs = self.pairs.index_select(0, values.flatten().int())
        return pairs.view(torch.float32).view(len(values), self.columns)


def _part(rows: slice | Tensor, start: int, stop: int) -> slice | Tensor:
    if isinstance(rows, slice):
        return slice(rows.start + start, rows.start + stop)
    return rows[start:stop]
