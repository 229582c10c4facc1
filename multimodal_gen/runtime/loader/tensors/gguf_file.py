"""Tensors of GGUF files, memory-mapped. Blocks are kept, or unpacked when they are read."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor

from multimodal_gen.checkpoints.tensor_info import Header, TensorInfo
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.layers.quantized.gguf.blocks import FORMS, unpack
from multimodal_gen.runtime.layers.quantized.gguf.storage import GgufStorage
from multimodal_gen.runtime.layers.quantized.storage import Storage
from multimodal_gen.runtime.loader.tensors.stored import Stored

_PLAIN = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
}


@dataclass(frozen=True, eq=False)
class _InFile:
    """A tensor of a file."""

    info: TensorInfo
    content: Tensor
    """Bytes of the tensor in the file, uint8."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.info.shape

    @property
    def dtype(self) -> str:
        return self.info.dtype


class GgufPlain(_InFile):
    """Plain numbers."""

    computed = False

    def rows(self, start: int, stop: int) -> Tensor:
        per_row = math.prod(self.shape[1:])
        plain = self.content.view(_PLAIN[self.dtype])
        return plain[start * per_row : stop * per_row].reshape(-1, *self.shape[1:])


class GgufBlocks(_InFile):
    """Numbers in blocks, which rows may share, as in a small tensor that was flattened."""

    computed = True

    def rows(self, start: int, stop: int) -> Tensor:
        """Unpack the blocks that have these rows, to float32."""
        per_row = math.prod(self.shape[1:])
        per_block, size = _sizes(self.dtype)
        first, last = start * per_row // per_block, -(-stop * per_row // per_block)
        blocks = self.content.view(-1, size)[first:last]
        numbers = unpack(self.dtype, blocks, per_block, torch.float32).view(-1)
        begin = start * per_row - first * per_block
        return numbers[begin : begin + (stop - start) * per_row].view(-1, *self.shape[1:])


class GgufRows(GgufBlocks):
    """Rows of whole blocks."""

    def keep(self, start: int, stop: int) -> Storage:
        """The rows in the file's pages."""
        blocks = self.content.view(self.shape[0], -1)[start:stop]
        return GgufStorage(self.dtype, blocks, math.prod(self.shape[1:]))


def gguf_tensors(header: Header) -> dict[str, Stored]:
    """Tensors of a file. Raises InvalidCheckpoint for a type that can't be unpacked."""
    if not header.tensors:
        raise InvalidCheckpoint(f"{header.path.name}: holds no tensors")
    # Copy on write, because torch requires writable memory; nothing writes to it.
    content = torch.from_numpy(np.memmap(header.path, mode="c"))
    return {
        name: _stored(name, info, content[info.start : info.start + info.size], header)
        for name, info in header.tensors.items()
    }


def _stored(name: str, info: TensorInfo, content: Tensor, header: Header) -> Stored:
    if info.dtype in _PLAIN:
        return GgufPlain(info, content)
    if info.dtype not in FORMS:
        raise InvalidCheckpoint(
            f"{header.path.name}: {name} is {info.dtype}, which can't be unpacked"
        )
    per_block, _ = _sizes(info.dtype)
    shared = math.prod(info.shape[1:]) % per_block
    return (GgufBlocks if shared else GgufRows)(info, content)


def _sizes(kind: str) -> tuple[int, int]:
    """Numbers and bytes in a block."""
    return GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
