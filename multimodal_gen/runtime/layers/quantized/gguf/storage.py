"""Rows of a linear layer's weight in GGUF's blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.quantized.gguf.blocks import numbers_in_block, unpack
from multimodal_gen.runtime.layers.quantized.storage import Storage, picked


class GgufStorage(Storage):
    """Rows that consist of whole blocks of one type."""

    blocks: Tensor

    def __init__(self, form: str, blocks: Tensor, columns: int) -> None:
        """`form` is ggml's name of the type, `blocks` uint8 [rows, bytes]."""
        super().__init__(len(blocks), columns)
        self.form = form
        self.register_buffer("blocks", blocks)

    @property
    def block(self) -> int:
        return numbers_in_block(self.form)

    def cut(self, columns: Sequence[range]) -> GgufStorage:
        blocks = self.blocks.unflatten(1, (self.columns // self.block, -1))
        kept = picked(blocks, columns, self.block).flatten(1)
        return GgufStorage(self.form, kept, sum(map(len, columns)))

    def numbers(self, rows: slice | Tensor, dtype: torch.dtype) -> Tensor:
        return unpack(self.form, self.blocks[rows], self.columns, dtype)
