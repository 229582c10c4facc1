"""Weights of 4-bit indices into a table of 16 numbers, with scales of blocks: nf4 and fp4."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.layers.quantized.storage import Storage, picked

NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""Quantiles of a normal distribution, scaled to -1 … 1: QLoRA, https://arxiv.org/abs/2305.14314."""

_TABLE = 16


class PlainScales(nn.Module):
    """Scales of blocks, as they are."""

    scales: Tensor

    def __init__(self, scales: Tensor) -> None:
        super().__init__()
        self.register_buffer("scales", scales)

    def forward(self, blocks: slice | Tensor) -> Tensor:
        """Scales of these blocks, in float32."""
        return self.scales[blocks].float()


class NestedScales(nn.Module):
    """Scales of blocks as 8-bit indices into a table of 256, with scales of blocks of their own
    and an offset."""

    indices: Tensor
    table: Tensor
    outer: Tensor
    offset: Tensor

    def __init__(
        self, indices: Tensor, table: Tensor, outer: Tensor, offset: Tensor, block: int, first: int
    ) -> None:
        """`outer` are the scales of blocks of `block` of these; the first of `indices` is number
        `first` of the first block."""
        super().__init__()
        self.block = block
        self.first = first
        self.register_buffer("indices", indices)
        self.register_buffer("table", table)
        self.register_buffer("outer", outer)
        self.register_buffer("offset", offset)

    def forward(self, blocks: slice | Tensor) -> Tensor:
        """Like `PlainScales.forward`."""
        if isinstance(blocks, slice):
            blocks = torch.arange(blocks.start, blocks.stop, device=self.indices.device)
        found = self.table[self.indices[blocks].int()]
        return found * self.outer[(blocks + self.first) // self.block] + self.offset


class CodebookStorage(Storage):
    """Indices of 4 bits, two in a byte, the first in its high bits; a scale for each block.

    Blocks go on from row to row.
    """

    values: Tensor
    pairs: Tensor
    """The two numbers, as float32, that each byte stands for: 64 bits."""

    def __init__(
        self,
        form: str,
        values: Tensor,
        table: Tensor,
        scales: PlainScales | NestedScales,
        block: int,
        first: int = 0,
    ) -> None:
        """`values` [rows, columns / 2], `table` [16]. `first` is the place of the first number in
        its block."""
        super().__init__(len(values), values.shape[1] * 2)
        self.form = form
        self.block_size = block
        self.first = first
        self.scales = scales
        self.register_buffer("values", values)
        pairs = torch.cartesian_prod(table.float(), table.float())  # [256, 2]
        self.register_buffer("pairs", pairs.view(torch.int64).squeeze(1))

    @property
    def block(self) -> int:
        return self.columns if self.first or self.columns % self.block_size else self.block_size

    def cut(self, columns: Sequence[range]) -> CodebookStorage:
        if columns == [range(self.columns)]:
            return self
        scales = self.scales(slice(0, self.rows * self.columns // self.block_size))
        return CodebookStorage(
            self.form,
            picked(self.values, columns, 2),
            self.pairs.view(torch.float32).view(-1, 2)[:_TABLE, 1],
            PlainScales(picked(scales.view(self.rows, -1), columns, self.block_size).flatten()),
            self.block_size,
        )

    def numbers(self, rows: slice | Tensor, dtype: torch.dtype) -> Tensor:
        pairs = self.pairs.index_select(0, self.values[rows].flatten().int())
        found = pairs.view(torch.float32).view(-1, self.columns)
        return found.mul_(self._scales(rows)).to(dtype)

    def _scales(self, rows: slice | Tensor) -> Tensor:
        """A scale for each number of these rows, [n, columns]."""
        if isinstance(rows, slice):
            return self._in_order(rows)
        start = rows[:, None] * self.columns + self.first
        places = start + torch.arange(self.columns, device=rows.device)
        scales: Tensor = self.scales((places // self.block_size).flatten())
        return scales.view(places.shape)

    def _in_order(self, rows: slice) -> Tensor:
        start = rows.start * self.columns + self.first
        stop = rows.stop * self.columns + self.first
        first = start // self.block_size
        scales: Tensor = self.scales(slice(first, -(-stop // self.block_size)))
        each = scales[:, None].expand(-1, self.block_size).flatten()
        return each[start - first * self.block_size :][: stop - start].view(-1, self.columns)
