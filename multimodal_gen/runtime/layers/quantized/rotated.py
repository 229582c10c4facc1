"""Weights that were rotated before they were quantised, so that no input channel stands out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.quantized.int8 import Int8Storage
from multimodal_gen.runtime.layers.quantized.kitchen import kitchen_product
from multimodal_gen.runtime.layers.quantized.storage import Storage

GROUPS = (4, 16, 64, 256, 1024, 4096)
"""Sizes of groups of channels that are rotated."""
_FIRST = ((1, 1, 1, -1), (1, 1, -1, 1), (1, -1, 1, 1), (-1, 1, 1, 1))


class RotatedStorage(Storage):
    """A weight W = V R for what another storage has, V.

    R rotates each group of `group` columns by a regular Hadamard matrix: the Kronecker product of
    4 x 4 ones, divided by their norm. It is symmetric, so it undoes itself. ConvRot,
    https://arxiv.org/abs/2512.03673: x Wᵀ = (x R) Vᵀ.
    """

    first: Tensor
    second: Tensor

    def __init__(self, rotated: Storage, group: int) -> None:
        super().__init__(rotated.rows, rotated.columns)
        assert group in GROUPS, group
        assert not rotated.columns % group, (rotated.columns, group)
        self.rotated = rotated
        self.group = group
        self.form = f"{rotated.form}-ConvRot"
        fours = GROUPS.index(group) + 1
        device = next(rotated.buffers()).device
        self.register_buffer("first", _hadamard(fours // 2).to(device))
        self.register_buffer("second", _hadamard(fours - fours // 2).to(device))

    @property
    def block(self) -> int:
        return math.lcm(self.group, self.rotated.block)

    def cut(self, columns: Sequence[range]) -> RotatedStorage:
        return RotatedStorage(self.rotated.cut(columns), self.group)

    def numbers(self, rows: slice | Tensor, dtype: torch.dtype) -> Tensor:
        return self._rotate(self.rotated.numbers(rows, torch.float32)).to(dtype)

    @property
    def unpacks(self) -> bool:
        return self.rotated.unpacks

    def product(self, x: Tensor) -> Tensor:
        if isinstance(self.rotated, Int8Storage) and not self.unpacks:
            values, scales = self.rotated.values, self.rotated.scales
            found = kitchen_product(x, values, scales, self.group)
            if found is not None:
                return found
        return self.rotated.product(self._rotate(x))

    def _rotate(self, x: Tensor) -> Tensor:
        """x R, as a product with each of two factors of R, or with R on a GPU."""
        first, second = self.first.to(x.dtype), self.second.to(x.dtype)
        if x.is_cuda:
            whole = torch.kron(first, second)
            return (x.reshape(-1, len(whole)) @ whole).view(x.shape)
        groups = (x.reshape(-1, len(second)) @ second).view(-1, len(first), len(second))
        return torch.matmul(first, groups).view(x.shape)


def _hadamard(fours: int) -> Tensor:
    """The normalised matrix of size 4 ** fours."""
    matrix = torch.ones(1, 1)
    for _ in range(fours):
        matrix = torch.kron(matrix, torch.tensor(_FIRST) / 2)
    return matrix
