"""Rows of a weight in another order than the file's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.quantized.storage import Storage


class ReorderedStorage(Storage):
    """A storage whose row `i` is row `order[i]` of another, which stays as it is."""

    order: Tensor

    def __init__(self, stored: Storage, order: Tensor) -> None:
        super().__init__(len(order), stored.columns)
        self.form = stored.form
        self.stored = stored
        self.register_buffer("order", order)

    @property
    def block(self) -> int:
        return self.stored.block

    def cut(self, columns: Sequence[range]) -> ReorderedStorage:
        return ReorderedStorage(self.stored.cut(columns), self.order)

    def numbers(self, rows: slice | Tensor, dtype: torch.dtype) -> Tensor:
        return self.stored.numbers(self.order[rows], dtype)
