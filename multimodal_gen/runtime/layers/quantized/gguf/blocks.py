"""Numbers in GGUF's blocks, in the arithmetic of ggml's reference (ggml-quants.c): bit-equal to it.

A block is a fixed number of bytes that holds 32 to 256 numbers: small integers, which have a scale
(and some an offset) for each share of the block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor

from multimodal_gen.runtime.layers.quantized.gguf import grids
from multimodal_gen.runtime.layers.quantized.gguf.fields import (
    bit_masks,
    fields,
    half,
    signed,
    six_bit_scales,
)

_STEP = {"cpu": 1 << 20, "cuda": 1 << 24}
"""Numbers that are unpacked at a time: what fits into a cache, or keeps a device busy."""

Scales = tuple[Tensor, Tensor | None]


class BlockForm(NamedTuple):
    """Reader of the blocks of one type, uint8 [n, bytes]."""

    integers: Callable[[Tensor], Tensor]
    """int8 or uint8 [n, numbers]"""
    scales: Callable[[Tensor], Scales]
    """Scale and offset, float32 [n, shares]: number = integer * scale - offset."""


def numbers_in_block(kind: str) -> int:
    """Numbers that a block of this type holds."""
    count: int = GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0]
    return count


def unpack(kind: str, rows: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """Numbers [n, columns] of rows of whole blocks, uint8 [n, bytes].

    They are computed in float32, a part at a time.
    """
    form = FORMS[kind]
    per_block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    numbers = torch.empty(len(rows), columns, dtype=dtype, device=rows.device)
    blocks = rows.reshape(-1, size)
    scale, offset = form.scales(blocks)
    shares = numbers.view(*scale.shape, -1)
    step = _STEP.get(rows.device.type, _STEP["cpu"]) // per_block
    for start in range(0, len(blocks), step):
        part = slice(start, start + step)
        target = shares[part]
        exact = target if dtype == torch.float32 else torch.empty_like(target, dtype=torch.float32)
        exact.copy_(form.integers(blocks[part]).view(target.shape)).mul_(scale[part, :, None])
        if offset is not None:
            exact.sub_(offset[part, :, None])
        if exact is not target:
            target.copy_(exact)
    return numbers


# -- 32 numbers a block


def _one_scale(blocks: Tensor) -> Scales:
    return half(blocks, 0), None


def _scale_and_minimum(blocks: Tensor) -> Scales:
    return half(blocks, 0), -half(blocks, 2)


def _q4_0(blocks: Tensor) -> Tensor:
    return signed(fields(blocks[:, 2:], 4, 16), 8)


def _q4_1(blocks: Tensor) -> Tensor:
    return fields(blocks[:, 4:], 4, 16)


def _q5_0(blocks: Tensor) -> Tensor:
    return signed(fields(blocks[:, 6:], 4, 16) | bit_masks(blocks[:, 2:6]) & 16, 16)


def _q5_1(blocks: Tensor) -> Tensor:
    return fields(blocks[:, 8:], 4, 16) | bit_masks(blocks[:, 4:8]) & 16


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].view(torch.int8)


# -- 256 numbers a block


def _q2_k_scales(blocks: Tensor) -> Scales:
    scales = blocks[:, :16].contiguous()
    return half(blocks, 80) * (scales & 15), half(blocks, 82) * (scales >> 4)


def _q2_k(blocks: Tensor) -> Tensor:
    return fields(blocks[:, 16:80], 2, 32)


def _q3_k_scales(blocks: Tensor) -> Scales:
    first, second, high = blocks[:, 96:108].contiguous().view(torch.int32).unbind(1)
    words = [
        low & 0x0F0F0F0F | upper & 0x30303030
        for low, upper in (
            (first, high << 4),
            (second, high << 2),
            (first >> 4, high),
            (second >> 4, high >> 2),
        )
    ]
    return half(blocks, 108) * torch.stack(words, 1).view(torch.int8).sub_(32), None


def _q3_k(blocks: Tensor) -> Tensor:
    return signed(fields(blocks[:, 32:96], 2, 32) | fields(blocks[:, :32], 1, 32, at=2), 4)


def _q4_k(blocks: Tensor) -> Tensor:
    return fields(blocks[:, 16:], 4, 32)


def _q5_k(blocks: Tensor) -> Tensor:
    return fields(blocks[:, 48:], 4, 32) | fields(blocks[:, 16:48], 1, 32, at=4)


def _q6_k_scales(blocks: Tensor) -> Scales:
    return half(blocks, 208) * blocks[:, 192:208].view(torch.int8), None


def _q6_k(blocks: Tensor) -> Tensor:
    return signed(fields(blocks[:, :128], 4, 64) | fields(blocks[:, 128:192], 2, 32, at=4), 32)


def _tq1_0(blocks: Tensor) -> Tensor:
    powers = (1, 3, 9, 27, 81)
    trits = torch.cat(
        [
            blocks[:, start:stop] * power
            for start, stop, count in ((0, 32, 5), (32, 48, 5), (48, 52, 4))
            for power in powers[:count]
        ],
        dim=1,
    )
    return (trits.short() * 3 >> 8).to(torch.int8).sub_(1)


def _tq2_0(blocks: Tensor) -> Tensor:
    return signed(fields(blocks[:, :64], 2, 32), 1)


FORMS: Mapping[str, BlockForm] = {
    "Q4_0": BlockForm(_q4_0, _one_scale),
    "Q4_1": BlockForm(_q4_1, _scale_and_minimum),
    "Q5_0": BlockForm(_q5_0, _one_scale),
    "Q5_1": BlockForm(_q5_1, _scale_and_minimum),
    "Q8_0": BlockForm(_q8_0, _one_scale),
    "Q2_K": BlockForm(_q2_k, _q2_k_scales),
    "Q3_K": BlockForm(_q3_k, _q3_k_scales),
    "Q4_K": BlockForm(_q4_k, six_bit_scales),
    "Q5_K": BlockForm(_q5_k, six_bit_scales),
    "Q6_K": BlockForm(_q6_k, _q6_k_scales),
    "TQ1_0": BlockForm(_tq1_0, lambda blocks: (half(blocks, 52), None)),
    "TQ2_0": BlockForm(_tq2_0, lambda blocks: (half(blocks, 64), None)),
    "MXFP4": BlockForm(grids.mxfp4, grids.mxfp4_scales),
    "NVFP4": BlockForm(grids.nvfp4, grids.nvfp4_scales),
    "IQ4_NL": BlockForm(grids.iq4_nl, _one_scale),
    "IQ4_XS": BlockForm(grids.iq4_xs, grids.iq4_xs_scales),
    "IQ3_S": BlockForm(grids.iq3_s, grids.iq3_s_scales),
    "IQ3_XXS": BlockForm(grids.iq3_xxs, grids.iq3_xxs_scales),
    "IQ2_S": BlockForm(grids.iq2_s, grids.iq2_s_scales),
    "IQ2_XS": BlockForm(grids.iq2_xs, grids.iq2_xs_scales),
    "IQ2_XXS": BlockForm(grids.iq2_xxs, grids.iq2_xxs_scales),
    "IQ1_S": BlockForm(grids.iq1_s, grids.iq1_s_scales),
    "IQ1_M": BlockForm(grids.iq1_m, grids.iq1_m_scales),
}
"""By ggml's name of the type."""
