"""Bit fields and scales in blocks.

Bits are moved in words of eight bytes, and a field's of all blocks at once, since an operation on a
few bytes of each block costs as much as one on all of them.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

_EVERY_BYTE = 0x0101010101010101


def half(blocks: Tensor, at: int) -> Tensor:
    """The float16 at byte `at` of each block, [n, 1] in float32."""
    return blocks[:, at : at + 2].view(torch.float16).float()


def uint16(packed: Tensor) -> Tensor:
    """Pairs of bytes as numbers in int32."""
    return packed.contiguous().view(torch.int16).int() & 0xFFFF


def fields(packed: Tensor, bits: int, group: int, *, at: int = 0) -> Tensor:
    """Unpack fields of `bits` bits from bytes [n, b]: the lowest of `group` bytes, then the next
    higher ones of the same bytes, and so on for each group. They are moved to bit `at`.

    Returns uint8 [n, b * 8 / bits]; `group` is a multiple of 8.
    """
    words = packed.contiguous().view(torch.int64)
    moved = [
        words >> shift - at if shift >= at else words << at - shift for shift in range(0, 8, bits)
    ]
    # They are put together as the widest type that there is.
    wide, width = (torch.complex128, 16) if group % 16 == 0 else (torch.int64, 8)
    joined = torch.stack([each.view(wide).view(-1, group // width) for each in moved], 1)
    mask = ((1 << bits) - 1 << at) * _EVERY_BYTE
    return joined.view(torch.int64).bitwise_and_(mask).view(torch.uint8).view(len(packed), -1)


def split(packed: Tensor, bits: int) -> Tensor:
    """Unpack all fields of a byte, from the lowest, then those of the next."""
    parts = [packed >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)]
    return torch.stack(parts, 2).view(len(packed), -1)


def bit_masks(packed: Tensor) -> Tensor:
    """Each bit of bytes [n, b], from the lowest, as a byte: uint8 [n, 8 b], 255 where it is set."""
    return looked_up(masks_of_bytes(packed.device), packed).view(torch.uint8).view(len(packed), -1)


@cache
def masks_of_bytes(device: torch.device) -> Tensor:
    """Eight bytes, as one word, for each byte: 255 where its bits are set, from the lowest."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return torch.from_numpy(bits * np.uint8(255)).view(torch.int64)[:, 0].to(device)


def looked_up(table: Tensor, index: Tensor) -> Tensor:
    """Entries of a table [t] in the shape of `index`."""
    return table.index_select(0, index.reshape(-1).int()).view(index.shape)


def signed(integers: Tensor, offset: int) -> Tensor:
    """uint8 minus `offset`, as int8, in place."""
    return integers.view(torch.int8).sub_(offset)


def six_bit_scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and offsets [n, 8] of blocks that begin with two float16 and 12 bytes.

    The low six bits of bytes 0 to 3 and 4 to 7 are the first halves of scales and offsets; their
    upper two bits go above the nibbles of bytes 8 to 11, which are the second halves.
    """
    _, scales, offsets, nibbles = blocks[:, :16].contiguous().view(torch.int32).unbind(1)
    words = torch.stack(
        (
            scales & 0x3F3F3F3F,
            nibbles & 0x0F0F0F0F | scales >> 2 & 0x30303030,
            offsets & 0x3F3F3F3F,
            nibbles >> 4 & 0x0F0F0F0F | offsets >> 2 & 0x30303030,
        ),
        1,
    )
    six_bits = words.view(torch.uint8).float()
    return half(blocks, 0) * six_bits[:, :8], half(blocks, 2) * six_bits[:, 8:]
