"""Tensors of GGUF files, memory-mapped, and dequantised by the gguf package when read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from torch import Tensor

from multimodal_gen.checkpoints.tensor_info import Header, TensorInfo, is_float
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.tensors.stored import Stored

_PLAIN = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


@dataclass(frozen=True, eq=False)
class GgufTensor:
    info: TensorInfo
    content: npt.NDArray[np.uint8]
    """Bytes of the tensor in the file."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.info.shape

    @property
    def dtype(self) -> str:
        return self.info.dtype

    @property
    def computed(self) -> bool:
        return self.dtype not in _PLAIN

    def rows(self, start: int, stop: int) -> Tensor:
        """Read plain types unchanged, quantised ones as float32."""
        per_row = math.prod(self.shape[1:])
        if self.dtype in _PLAIN:
            plain = torch.from_numpy(self.content).view(_PLAIN[self.dtype])
            return plain[start * per_row : stop * per_row].reshape(-1, *self.shape[1:])
        kind = GGMLQuantizationType[self.dtype]
        block, block_bytes = GGML_QUANT_SIZES[kind]
        if per_row % block:  # Rows share blocks, for example in a flattened small tensor.
            return _numbers(self.content, kind).reshape(self.shape)[start:stop]
        row_bytes = per_row // block * block_bytes
        numbers = _numbers(self.content[start * row_bytes : stop * row_bytes], kind)
        return numbers.reshape(-1, *self.shape[1:])


def gguf_tensors(header: Header) -> dict[str, Stored]:
    """Tensors of a file. Raises InvalidCheckpoint for a type that can't be dequantised."""
    if not header.tensors:
        raise InvalidCheckpoint(f"{header.path.name}: holds no tensors")
    # Copy on write, because torch requires writable memory.
    content = np.memmap(header.path, mode="c")
    for name, info in {info.dtype: (name, info) for name, info in header.tensors.items()}.values():
        _check(name, info, header.path)
    return {
        name: GgufTensor(info, content[info.start : info.start + info.size])
        for name, info in header.tensors.items()
    }


def _numbers(blocks: npt.NDArray[np.uint8], kind: GGMLQuantizationType) -> Tensor:
    with np.errstate(all="ignore"):  # Overflowing scales come from the file.
        return torch.from_numpy(dequantize(blocks, kind))


def _check(name: str, info: TensorInfo, path: Path) -> None:
    if info.dtype in _PLAIN or not is_float(info.dtype):
        return
    kind = GGMLQuantizationType[info.dtype]
    try:
        _numbers(np.zeros(GGML_QUANT_SIZES[kind][1], np.uint8), kind)
    except NotImplementedError as error:
        raise InvalidCheckpoint(
            f"{path.name}: {name} is {info.dtype}, which can't be dequantised"
        ) from error
