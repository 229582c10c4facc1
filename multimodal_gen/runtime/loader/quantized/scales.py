"""Reads the scales of blocks of a weight, in the arrangements that files have them in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.quantized.block_scales import TILE, BlockScales, SwizzledScales
from multimodal_gen.runtime.loader.quantized.stored_layer import StoredLayer, whole
from multimodal_gen.runtime.loader.tensors.stored import Stored

_USUAL_BLOCK = 128
_BLOCK_SETTINGS = ("weight_block_size", "block_size", "group_size")


class StoredScales(Protocol):
    """Scales of a weight in a file."""

    def keep(self, start: int, stop: int) -> BlockScales:
        """The scales of a range of the weight's rows."""


@dataclass(frozen=True)
class ScaleGrid:
    """Scales [R, C] of blocks of rows and columns."""

    numbers: Tensor
    block: tuple[int, int]

    def keep(self, start: int, stop: int) -> BlockScales:
        rows = self.block[0]
        first = start // rows
        return BlockScales(self.numbers[first : -(-stop // rows)], self.block, start - first * rows)


@dataclass(frozen=True)
class ScaleTiles:
    """Scales in tiles; see `SwizzledScales`."""

    tiles: Tensor
    block: tuple[int, int]
    columns: int
    """Scales in a row."""

    def keep(self, start: int, stop: int) -> BlockScales:
        first = start // TILE[0]
        tiles = self.tiles[first : -(-stop // TILE[0])]
        return SwizzledScales(tiles, self.block, self.columns, start - first * TILE[0])


def grid_of(layer: StoredLayer, stored: Stored) -> ScaleGrid:
    """One scale per row, or per block, whose size the settings or the shapes tell.

    Raises InvalidCheckpoint.
    """
    part, shape = layer.part_of(stored), stored.shape
    rows, columns = layer.shape[0], math.prod(layer.shape[1:])
    numbers = layer.positive(whole(stored), part)
    if math.prod(shape) == rows == shape[0]:
        return ScaleGrid(numbers.reshape(-1, 1), (1, columns))
    # [R, C], or with dimensions of 1 after each, or after both.
    grid = (shape[0], shape[2 if len(shape) == 4 else 1]) if len(shape) > 1 else (0, 0)
    block = _block(layer, 0, grid[0], rows), _block(layer, 1, grid[1], columns)
    if math.prod(grid) != math.prod(shape) or not all(block) or len(layer.shape) != 2:
        raise layer.error(
            part,
            f"{stored.dtype} {list(shape)} must be one scale, or one per row or block of the "
            f"weight {list(layer.shape)}",
        )
    return ScaleGrid(numbers.reshape(grid), block)


def _block(layer: StoredLayer, axis: int, count: int, size: int) -> int:
    """Rows or columns of a block, if `size` are in `count` blocks; 0 if they can't be."""
    for block in _blocks(layer, axis, count, size):
        if block > 0 and -(-size // block) == count:
            return block
    return 0


def _blocks(layer: StoredLayer, axis: int, count: int, size: int) -> Iterator[int]:
    for key in _BLOCK_SETTINGS:
        noted = layer.settings.get(key)
        if isinstance(noted, list) and len(noted) == 2:
            noted = noted[axis]
        if isinstance(noted, int):
            yield noted
    yield 1
    yield _USUAL_BLOCK
    if count and size % count == 0:
        yield size // count


def blocks_of(
    layer: StoredLayer, stored: Stored, width: int, dtype: torch.dtype, *, swizzled: bool
) -> StoredScales:
    """Scales of one byte for blocks of `width` columns, as rows [out, C] or in tiles.

    `swizzled` decides where the shape fits both. Raises InvalidCheckpoint.
    """
    part, shape = layer.part_of(stored), stored.shape
    rows, columns = layer.shape[0], -(-layer.shape[1] // width)
    tiles = (-(-rows // TILE[0]), -(-columns // TILE[1]))
    padded = (tiles[0] * TILE[0], tiles[1] * TILE[1])
    in_tiles = math.prod(shape) == math.prod(padded) and shape[-1:] in (padded[1:], shape)
    in_rows = shape[:1] + shape[-1:] == (rows, columns) and math.prod(shape) == rows * columns
    if stored.dtype not in ("U8", "I8", "F8_E4M3", "F8_E8M0") or not (in_tiles or in_rows):
        raise layer.error(
            part,
            f"{stored.dtype} {list(shape)} must be a byte for each {width} columns of the weight "
            f"{list(layer.shape)}: {[rows, columns]}, or {list(padded)} in tiles",
        )
    scales = whole(stored).view(torch.uint8)
    _check(layer, part, scales, dtype)
    if in_tiles and (swizzled or not in_rows):
        return ScaleTiles(scales.view(dtype).view(*tiles, 32, 4, 4), (1, width), columns)
    return ScaleGrid(scales.view(dtype).view(rows, columns), (1, width))


def _check(layer: StoredLayer, part: str, scales: Tensor, dtype: torch.dtype) -> None:
    """Raise InvalidCheckpoint for scales that are negative or no numbers. Those of blocks of
    zeros are 0."""
    # Of E4M3, 0x7f and 0xff are no numbers, and the highest bit is the sign; of E8M0, 0xff is none.
    wrong = scales == 255 if dtype == torch.float8_e8m0fnu else scales.gt(128) | scales.eq(127)
    if wrong.any():
        value = scales[wrong][:1].view(dtype).float().item()
        raise layer.error(part, f"a scale of {value} must be finite and not negative")
