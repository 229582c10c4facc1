"""Weights of integers, in the tensors that public tools write for them."""

from __future__ import annotations

import torch
from quantized_weights import Parts, note
from torch import Tensor

_REGULAR = torch.tensor([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]) / 2


def int8(weight: Tensor, *, of: str = "row", name: str = "weight_scale") -> Parts:
    """ComfyUI's int8_tensorwise, before and after it noted forms: a scale per row, or one."""
    largest = weight.abs().amax(1, keepdim=True) if of == "row" else weight.abs().max()
    scale = largest / 127
    numbers = (weight / scale).round().to(torch.int8)
    return Parts({"weight": numbers, name: scale}, numbers * scale)


def int8_noted(weight: Tensor, *, of: str = "row") -> Parts:
    parts = int8(weight, of=of)
    return Parts(parts.tensors | note("int8_tensorwise"), parts.exact)


def int8_rotated(weight: Tensor, group: int, *, nested: bool = False) -> Parts:
    """int8-ConvRot: rotated in groups of columns, then with a scale per row."""
    rotation = torch.ones(1, 1)
    while len(rotation) < group:
        rotation = torch.kron(rotation, _REGULAR)
    parts = int8((weight.view(-1, group) @ rotation).view(weight.shape))
    settings = {"convrot": True, "convrot_groupsize": group}
    noted = note("int8_tensorwise", **({"params": settings} if nested else settings))
    exact = (parts.exact.view(-1, group) @ rotation.T).view(weight.shape)
    return Parts(parts.tensors | noted, exact)


def int8_blocks(weight: Tensor, size: int) -> Parts:
    """int8 with a scale for each block of rows and columns, as converters for ComfyUI write it."""
    blocks = weight.unflatten(1, (-1, size)).unflatten(0, (-1, size))
    scale = blocks.abs().amax((1, 3)) / 127
    whole = scale.repeat_interleave(size, 0).repeat_interleave(size, 1)
    numbers = (weight / whole).round().to(torch.int8)
    noted = note("int8_blockwise", group_size=size)
    return Parts({"weight": numbers, "weight_scale": scale} | noted, numbers * whole)


def bitsandbytes_int8(weight: Tensor) -> Parts:
    """load_in_8bit: the largest number of each row, and the order of rows and columns."""
    largest = weight.abs().amax(1)
    numbers = (weight / largest[:, None] * 127).round().to(torch.int8)
    tensors = {"weight": numbers, "SCB": largest, "weight_format": torch.tensor(0).byte()}
    return Parts(tensors, numbers * (largest[:, None] / 127))
