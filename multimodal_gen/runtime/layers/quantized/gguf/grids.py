"""Blocks whose numbers come from tables: the IQ types, MXFP4 and NVFP4. See `BlockForm`.

The tables are the gguf package's. An entry of a grid is 4 or 8 small integers, looked up as a word.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from gguf import quants
from torch import Tensor

from multimodal_gen.runtime.layers.quantized.gguf.fields import (
    bit_masks,
    fields,
    half,
    looked_up,
    masks_of_bytes,
    split,
    uint16,
)

_WORDS = {4: torch.int32, 8: torch.int64}


# -- 16 values of four bits


def mxfp4(blocks: Tensor) -> Tensor:
    return looked_up(_values("MXFP4", blocks.device), fields(blocks[:, 1:], 4, 16))


def mxfp4_scales(blocks: Tensor) -> tuple[Tensor, None]:
    return looked_up(_exponents(blocks.device), blocks[:, :1]), None


def nvfp4(blocks: Tensor) -> Tensor:
    return looked_up(_values("NVFP4", blocks.device), fields(blocks[:, 4:], 4, 8))


def nvfp4_scales(blocks: Tensor) -> tuple[Tensor, None]:
    return looked_up(_small_floats(blocks.device), blocks[:, :4]), None


def iq4_nl(blocks: Tensor) -> Tensor:
    return looked_up(_values("IQ4_NL", blocks.device), fields(blocks[:, 2:], 4, 16))


def iq4_xs(blocks: Tensor) -> Tensor:
    return looked_up(_values("IQ4_NL", blocks.device), fields(blocks[:, 8:], 4, 16))


def iq4_xs_scales(blocks: Tensor) -> tuple[Tensor, None]:
    (upper,) = uint16(blocks[:, 2:4]).unbind(1)
    upper = torch.stack([upper >> shift & 3 for shift in range(0, 16, 2)], 1)
    return half(blocks, 0) * ((split(blocks[:, 4:8], 4) | upper << 4) - 32), None


# -- grids


def iq3_s(blocks: Tensor) -> Tensor:
    upper = bit_masks(blocks[:, 66:74]).int() & 1
    return _grid("IQ3_S", blocks[:, 2:66] | upper << 8, bit_masks(blocks[:, 74:106]))


def iq3_s_scales(blocks: Tensor) -> tuple[Tensor, None]:
    return half(blocks, 0) * (1 + 2 * split(blocks[:, 106:110], 4)), None


def iq3_xxs(blocks: Tensor) -> Tensor:
    return _grid("IQ3_XXS", blocks[:, 2:66], _coded_signs(_words(blocks[:, 66:98])))


def iq3_xxs_scales(blocks: Tensor) -> tuple[Tensor, None]:
    return half(blocks, 0) * (0.5 + (_words(blocks[:, 66:98]) >> 28 & 15).float()) * 0.5, None


def iq2_s(blocks: Tensor) -> Tensor:
    index = blocks[:, 2:34] | split(blocks[:, 66:74], 2).int() << 8
    return _grid("IQ2_S", index, bit_masks(blocks[:, 34:66]))


def iq2_s_scales(blocks: Tensor) -> tuple[Tensor, None]:
    return half(blocks, 0) * (0.5 + split(blocks[:, 74:82], 4).float()) * 0.25, None


def iq2_xs(blocks: Tensor) -> Tensor:
    pairs = uint16(blocks[:, 2:66])
    return _grid("IQ2_XS", pairs & 511, looked_up(_sign_codes(blocks.device), pairs >> 9))


def iq2_xs_scales(blocks: Tensor) -> tuple[Tensor, None]:
    return half(blocks, 0) * (0.5 + split(blocks[:, 66:74], 4).float()) * 0.25, None


def iq2_xxs(blocks: Tensor) -> Tensor:
    index, rest = _words(blocks[:, 2:]).view(len(blocks), 8, 2).unbind(2)
    return _grid("IQ2_XXS", index.contiguous().view(torch.uint8), _coded_signs(rest))


def iq2_xxs_scales(blocks: Tensor) -> tuple[Tensor, None]:
    upper = _words(blocks[:, 2:])[:, 1::2] >> 28 & 15
    return half(blocks, 0) * (0.5 + upper.float()) * 0.25, None


# -- grids of -1, 0, 1 plus or minus an eighth, in eighths


def iq1_s(blocks: Tensor) -> Tensor:
    rest = uint16(blocks[:, 34:50])
    upper = torch.stack([rest >> shift & 7 for shift in (0, 3, 6, 9)], 2).view(len(blocks), -1)
    return _eighths("IQ1_S", blocks[:, 2:34] | upper << 8, rest & 0x8000)


def iq1_s_scales(blocks: Tensor) -> tuple[Tensor, None]:
    return half(blocks, 0) * (2 * (uint16(blocks[:, 34:50]) >> 12 & 7) + 1) / 8, None


def iq1_m(blocks: Tensor) -> Tensor:
    rest = split(blocks[:, 32:48], 4).int()
    return _eighths("IQ1_M", blocks[:, :32] | (rest & 7) << 8, rest & 8)


def iq1_m_scales(blocks: Tensor) -> tuple[Tensor, None]:
    """The float16 is spread over the upper nibbles of the four words that have the scales."""
    words = uint16(blocks[:, 48:56])
    bits = torch.stack([(words[:, place] >> 12) << 4 * place for place in range(4)], 1)
    whole = bits.sum(1, keepdim=True).short().view(torch.float16).float()
    scales = torch.stack([words >> shift & 7 for shift in (0, 3, 6, 9)], 2).view(len(blocks), -1)
    return whole * (2 * scales + 1) / 8, None


# -- look-ups


def _words(packed: Tensor) -> Tensor:
    return packed.contiguous().view(torch.int32)


def _coded_signs(words: Tensor) -> Tensor:
    """Signs of 32 numbers for each word, whose low bits have four codes of seven bits."""
    codes = torch.stack([words >> shift & 127 for shift in (0, 7, 14, 21)], 2)
    return looked_up(_sign_codes(words.device), codes)


def _grid(kind: str, index: Tensor, negative: Tensor) -> Tensor:
    """Integers at `index` [n, i] of a type's grid, int8 [n, numbers]; those that have a byte of 255
    in `negative` change their sign."""
    integers = looked_up(_grid_words(kind, index.device), index).view(torch.int8)
    masks = negative.reshape(len(index), -1).view(torch.int8)
    return integers.bitwise_xor_(masks).sub_(masks)


def _eighths(kind: str, index: Tensor, negative: Tensor) -> Tensor:
    integers = looked_up(_grid_words(kind, index.device), index).view(torch.int8).mul_(8)
    offsets = torch.where(negative == 0, 1, -1).to(torch.int8)
    return integers.view(*offsets.shape, -1).add_(offsets[..., None]).view(len(index), -1)


@cache
def _grid_words(kind: str, device: torch.device) -> Tensor:
    own: Any = getattr(quants, kind)
    own.init_grid()
    entries = np.ascontiguousarray(own.grid[0, 0].astype(np.int8))
    return torch.from_numpy(entries).view(_WORDS[entries.shape[1]])[:, 0].to(device)


@cache
def _values(kind: str, device: torch.device) -> Tensor:
    return torch.tensor(getattr(quants, kind).kvalues, dtype=torch.int8, device=device)


@cache
def _sign_codes(device: torch.device) -> Tensor:
    """Masks, as `masks_of_bytes`, for codes of seven bits that stand for eight signs."""
    return masks_of_bytes(device)[torch.tensor(list(quants.IQ2_XXS.ksigns), device=device)]


@cache
def _exponents(device: torch.device) -> Tensor:
    return torch.from_numpy(quants.MXFP4.e8m0_to_fp32_half(np.arange(256, dtype=np.uint8))).to(
        device
    )


@cache
def _small_floats(device: torch.device) -> Tensor:
    return torch.from_numpy(quants.NVFP4.ue4m3_to_fp32(np.arange(256, dtype=np.uint8))).to(device)
