"""A layer's quantised weight, in the tensors that libraries write for it: bitsandbytes, torchao and
optimum-quanto."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.quantized.codebook import NF4

FP4 = (0, 1 / 192, 2 / 3, 1, 1 / 3, 1 / 2, 1 / 6, 1 / 4)
TABLES = {"nf4": NF4, "fp4": (*FP4, *(-number for number in FP4))}


class Written(NamedTuple):
    """Tensors by name in the file, what its header notes, and the numbers that they stand for."""

    tensors: dict[str, Tensor]
    notes: dict[str, str]
    exact: Tensor


def four_bits(
    weight: Tensor,
    form: str = "nf4",
    *,
    block: int = 64,
    nested: bool = False,
    storage: torch.dtype = torch.uint8,
    layer: str = "layer",
) -> Written:
    """bitsandbytes' load_in_4bit; `nested`: bnb_4bit_use_double_quant."""
    table = torch.tensor(TABLES[form])
    flat = weight.flatten()
    padded = torch.cat((flat, flat.new_zeros(-len(flat) % block))).view(-1, block)
    scales = padded.abs().amax(1)
    state: dict[str, Any] = {"quant_type": form, "blocksize": block, "shape": [*weight.shape]}
    parts = {"quant_map": table, "absmax": scales}
    if nested:
        offset = scales.mean()
        outer = (scales - offset).abs().max()
        indices = ((scales - offset) / outer * 127 + 128).round().to(torch.uint8)
        codes = (torch.arange(256) - 128) / 127
        outer_scales = outer.expand(-(-len(scales) // 256)).clone()
        parts |= {"absmax": indices, "nested_absmax": outer_scales, "nested_quant_map": codes}
        state |= {"nested_blocksize": 256, "nested_offset": offset.item()}
        scales = codes[indices.int()] * outer + offset
    indices = (padded / scales[:, None])[:, :, None].sub(table).abs().argmin(-1)
    exact = (table[indices] * scales[:, None]).flatten()[: len(flat)].view(weight.shape)
    first, second = indices.flatten()[: len(flat)].view(-1, 2).T
    packed = (first << 4 | second).to(torch.uint8).view(storage).view(-1, 1)
    noted = torch.tensor([*json.dumps(state).encode()], dtype=torch.uint8)
    parts = {f".{part}": each for part, each in parts.items()} | {"": packed}
    parts[f".quant_state.bitsandbytes__{form}"] = noted
    return Written({f"{layer}.weight{part}": each for part, each in parts.items()}, {}, exact)


def torchao_int8(
    weight: Tensor, *, group: int | None = None, dynamic: bool = False, zero: int = 0
) -> Written:
    """Int8Tensor, with a scale per row or group of columns."""
    numbers, scale = _integers(weight, 127 - abs(zero), group)
    numbers = numbers + zero
    kwargs = {"_type": "QuantizeTensorToInt8Kwargs", "_data": {}} if dynamic else None
    parts = {"qdata": numbers, "scale": scale, "zero_point": torch.full_like(scale, zero).char()}
    exact = (numbers - zero).unflatten(1, (scale.shape[1], -1)) * scale[:, :, None]
    data = {"act_quant_kwargs": kwargs, "block_size": [1, group or weight.shape[1]]}
    return _flattened("Int8Tensor", parts, data, exact.flatten(1))


def torchao_float8(weight: Tensor) -> Written:
    """Float8Tensor, with a scale per row."""
    scale = weight.abs().amax(1, keepdim=True) / 448
    numbers = (weight / scale).to(torch.float8_e4m3fn)
    data = {"block_size": [1, weight.shape[1]]}
    parts = {"qdata": numbers, "scale": scale}
    return _flattened("Float8Tensor", parts, data, numbers.float() * scale)


def torchao_intx(weight: Tensor, *, group: int, zero: int = 0) -> Written:
    """IntxUnpackedToInt8Tensor: 4 bits in bytes."""
    numbers, scale = _integers(weight, 7 - abs(zero), group)
    numbers = numbers + zero
    parts = {"qdata": numbers, "scale": scale, "zero_point": torch.full_like(scale, zero).char()}
    exact = (numbers - zero).unflatten(1, (scale.shape[1], -1)) * scale[:, :, None]
    data = {"target_dtype": {"_type": "torch.dtype", "_data": "int4"}, "block_size": [1, group]}
    return _flattened("IntxUnpackedToInt8Tensor", parts, data, exact.flatten(1))


def torchao_int4(weight: Tensor, *, group: int) -> Written:
    """Int4Tensor: two numbers in a byte, the first in its low bits; scales [groups, rows], and
    numbers to add."""
    groups = weight.unflatten(1, (-1, group))
    least, most = groups.amin(-1), groups.amax(-1)
    scale = (most - least) / 15
    shift = least + 8 * scale
    numbers = ((groups - least[:, :, None]) / scale[:, :, None]).round() - 8
    exact = (numbers * scale[:, :, None] + shift[:, :, None]).flatten(1)
    pairs = numbers.flatten(1).to(torch.int8).view(len(weight), -1, 2)
    packed = (pairs[:, :, 1] << 4) | (pairs[:, :, 0] & 15)
    parts = {"qdata": packed, "scale": scale.T, "zero_point": shift.T}
    data = {"block_size": [1, group], "shape": [*weight.shape]}
    return _flattened("Int4Tensor", parts, data, exact)


def quanto(weight: Tensor) -> Written:
    """optimum-quanto's qint8."""
    numbers, scale = _integers(weight, 127, None)
    tensors = {
        "layer.weight._data": numbers,
        "layer.weight._scale": scale,
        "layer.input_scale": torch.ones(()),
        "layer.output_scale": torch.ones(()),
    }
    return Written(tensors, {}, numbers * scale)


def _integers(weight: Tensor, most: int, group: int | None) -> tuple[Tensor, Tensor]:
    groups = weight.unflatten(1, (-1, group or weight.shape[1]))
    scale = groups.abs().amax(-1) / most
    return (groups / scale[:, :, None]).round().to(torch.int8).flatten(1), scale


def _flattened(kind: str, parts: dict[str, Tensor], data: dict[str, Any], exact: Tensor) -> Written:
    noted = {"_type": kind, "_data": data, "_tensor_data_names": [*parts]}
    notes = {"tensor_names": json.dumps(["layer.weight"]), "layer.weight": json.dumps(noted)}
    tensors = {f"layer._weight_{part}": each for part, each in parts.items()}
    return Written(tensors, {"format": "pt", **notes}, exact)
