"""Copies a safetensors file into memory without blocking other threads."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from multimodal_gen.checkpoints.tensor_info import Header, TensorInfo
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.tensors.derived import HeldTensor
from multimodal_gen.runtime.loader.tensors.stored import Stored

_DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
}


def copy_safetensors(header: Header) -> dict[str, Tensor]:
    """Copy all tensors of the file with this header; later changes to the file don't affect them.

    The library would copy them while holding the interpreter lock, half a second for 300 MB. Raises
    InvalidCheckpoint.
    """
    content = _content(header)
    return {key: _tensor(content, info, key) for key, info in header.tensors.items()}


def held_tensors(header: Header) -> dict[str, Stored]:
    """The same as a loader takes them."""
    copies = copy_safetensors(header)
    return {key: HeldTensor(each, header.tensors[key].dtype) for key, each in copies.items()}


def _content(header: Header) -> Tensor:
    size = max((info.start + info.size for info in header.tensors.values()), default=0)
    content = torch.empty(size, dtype=torch.uint8)
    left = content.numpy().data
    with header.path.open("rb", buffering=0) as file:
        while left:
            if not (count := file.readinto(left)):
                raise InvalidCheckpoint(f"{header.path.name}: was truncated while it was read")
            left = left[count:]
    return content


def _tensor(content: Tensor, info: TensorInfo, key: str) -> Tensor:
    dtype = _DTYPES.get(info.dtype)
    if dtype is None:
        raise InvalidCheckpoint(f"{key}: {info.dtype} is not supported here")
    numbers = content[info.start : info.start + info.size]
    if info.start % dtype.itemsize:
        numbers = numbers.clone()
    return numbers.view(dtype).view(info.shape)
