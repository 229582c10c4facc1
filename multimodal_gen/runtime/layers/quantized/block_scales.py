"""Scales that blocks of a weight's numbers have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.layers.quantized.storage import picked

TILE = (128, 4)
"""Rows and columns of a tile of swizzled scales."""


class BlockScales(nn.Module):
    """Scales [R, C] of blocks of rows and columns: one a row, or a grid."""

    numbers: Tensor

    def __init__(self, numbers: Tensor, block: tuple[int, int], first: int = 0) -> None:
        """`block` is the rows and columns of a block; the first row of the weight is row `first`
        of the first block."""
        super().__init__()
        self.dtype = numbers.dtype
        self.block = block
        self.first = first
        self.register_buffer("numbers", as_bytes(numbers))

    def of(self, rows: slice | Tensor) -> Tensor:
        """Scales of these rows of the weight, float32 [n, C]."""
        if self.block[0] > 1:
            rows = (listed(rows, self.numbers.device) + self.first) // self.block[0]
        return self._as_float32(self.numbers[rows])

    @property
    def is_by_row(self) -> bool:
        """True if all columns have one scale."""
        return self.numbers.shape[1] == 1

    def cut(self, columns: Sequence[range], rows: int) -> BlockScales:
        """Scales of these columns, which are whole blocks, of a weight of so many rows."""
        if self.is_by_row:
            return BlockScales(self._numbers, (self.block[0], sum(map(len, columns))), self.first)
        return BlockScales(picked(self._numbers, columns, self.block[1]), self.block, self.first)

    @property
    def _numbers(self) -> Tensor:
        """The scales [R, C] in their type."""
        return self.numbers.view(self.dtype) if self.numbers.itemsize == 1 else self.numbers

    def _as_float32(self, found: Tensor) -> Tensor:
        return (found.contiguous().view(self.dtype) if found.itemsize == 1 else found).float()


class SwizzledScales(BlockScales):
    """Scales of blocks of one row, in the order in which tensor cores read them.

    https://docs.nvidia.com/cuda/cublas/#d-block-scaling-factors-layout: `numbers` are tiles
    [row tiles, column tiles, 32, 4, 4] of 128 rows (32 * j + i at [i, j]) and 4 columns.
    """

    def __init__(self, numbers: Tensor, block: tuple[int, int], columns: int, first: int) -> None:
        """`columns` is the number of scales in a row, without padding."""
        super().__init__(numbers, block, first)
        self.columns = columns

    @property
    def is_by_row(self) -> bool:
        return self.columns == 1

    def cut(self, columns: Sequence[range], rows: int) -> BlockScales:
        in_rows = self._found(slice(0, rows)).contiguous().view(self.dtype)
        return BlockScales(in_rows, self.block).cut(columns, rows)

    def of(self, rows: slice | Tensor) -> Tensor:
        return self._as_float32(self._found(rows))

    def _found(self, rows: slice | Tensor) -> Tensor:
        row = listed(rows, self.numbers.device) + self.first
        tile, row = row // TILE[0], row % TILE[0]
        found = self.numbers[tile, :, row % 32, row // 32]  # [n, column tiles, 4]
        return found.flatten(1)[:, : self.columns]


def as_bytes(numbers: Tensor) -> Tensor:
    """Numbers of one byte as what they are stored as, so that no cast of a module changes them."""
    return numbers.view(torch.uint8) if numbers.dtype.itemsize == 1 else numbers


def listed(rows: slice | Tensor, device: torch.device) -> Tensor:
    """Indices of rows."""
    if isinstance(rows, slice):
        return torch.arange(rows.start, rows.stop, device=device)
    return rows
