"""Reads weights of 8-bit integers with scales."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from multimodal_gen.checkpoints.quantized.layer import SCALES
from multimodal_gen.runtime.layers.quantized.grouped import GroupedStorage
from multimodal_gen.runtime.layers.quantized.int8 import Int8Storage
from multimodal_gen.runtime.layers.quantized.rotated import GROUPS, RotatedStorage
from multimodal_gen.runtime.layers.quantized.storage import Storage
from multimodal_gen.runtime.loader.quantized.grouped_forms import grouped
from multimodal_gen.runtime.loader.quantized.stored_layer import (
    PLAIN,
    KeptNumbers,
    StoredLayer,
    whole,
)
from multimodal_gen.runtime.loader.tensors.stored import Quantized, Stored

_OUTLIERS = "SCB"
"""bitsandbytes' name for the largest number of each row, which 127 stands for."""
_USUAL_GROUP = 256
_USUAL_BLOCK = 128


@dataclass(frozen=True, eq=False)
class Int8Numbers(KeptNumbers):
    """A quantised weight of 8-bit integers."""

    make: Callable[[Tensor, slice], Storage]
    """Creates a storage of integers [n, columns], which are these rows."""

    def keep(self, start: int, stop: int) -> Storage:
        values = self.numbers.rows(start, stop).reshape(stop - start, -1).view(torch.int8)
        return self.make(values, slice(start, stop))


def int8(layer: StoredLayer) -> Quantized:
    """Scales of rows, or one; torchao's may be of groups of columns, with zero points. Raises
    InvalidCheckpoint.

    Inputs are quantised as well unless the file says otherwise. bitsandbytes would compute with
    those inputs in full precision that are larger than others; here all of them are.
    """
    if _is_grouped(layer):
        return grouped(layer)
    return _by_rows(layer)


def _by_rows(layer: StoredLayer) -> Int8Numbers:
    exact = bool(layer.settings.get("full_precision_matrix_mult"))
    scales = _row_scales(layer)
    quantizes_inputs = not exact and _OUTLIERS not in layer.tensors
    return Int8Numbers(layer, _integers(layer), partial(_by_row, scales, quantizes_inputs))


def int8_rotated(layer: StoredLayer) -> Int8Numbers:
    """Scales of rows, of a weight whose groups of columns are rotated. Raises InvalidCheckpoint."""
    group = layer.settings.get("convrot_groupsize", _USUAL_GROUP)
    found = _by_rows(layer)
    if len(layer.shape) != 2:
        raise layer.error("weight", f"{list(layer.shape)} must be a matrix")
    if not isinstance(group, int) or group not in GROUPS or layer.shape[1] % group:
        allowed = [size for size in GROUPS if not layer.shape[1] % size]
        raise layer.error(
            "comfy_quant",
            f"convrot_groupsize={group!r:.40} must be one of {allowed} for the weight "
            f"{list(layer.shape)}",
        )
    return Int8Numbers(
        layer, found.numbers, lambda values, rows: RotatedStorage(found.make(values, rows), group)
    )


def int8_blocks(layer: StoredLayer) -> Int8Numbers:
    """Scales [R, C] of square blocks. Raises InvalidCheckpoint."""
    stored = layer.needed(*SCALES)
    size = layer.settings.get("group_size", layer.settings.get("block_size", _USUAL_BLOCK))
    fits = isinstance(size, int) and size > 0 and len(layer.shape) == 2
    if not fits or stored.shape != tuple(each / size for each in layer.shape):
        raise layer.error(
            layer.part_of(stored),
            f"{stored.dtype} {list(stored.shape)} must be one scale for each {size!r:.40} rows "
            f"and columns of the weight {list(layer.shape)}",
        )
    return Int8Numbers(layer, _integers(layer), partial(_by_block, _scales(layer, stored), size))


def _is_grouped(layer: StoredLayer) -> bool:
    zeros, scales = layer.tensor("weight_zero_point"), layer.tensor("weight_scale")
    several = (
        scales is not None
        and scales.shape[:1] == layer.shape[:1]
        and math.prod(scales.shape[1:]) > 1
    )
    return several or (zeros is not None and bool(whole(zeros).any()))


def _by_row(scales: Tensor, quantizes_inputs: bool, values: Tensor, rows: slice) -> Storage:
    own = scales if len(scales) == 1 else scales[rows]
    return Int8Storage(values, own, quantizes_inputs=quantizes_inputs)


def _by_block(scales: Tensor, size: int, values: Tensor, rows: slice) -> Storage:
    own = scales[torch.arange(rows.start, rows.stop) // size]
    return GroupedStorage("int8_blockwise", values, own)


def _integers(layer: StoredLayer) -> Stored:
    numbers = layer.needed("weight")
    if numbers.dtype not in ("I8", "U8") or not numbers.shape:
        raise layer.error("weight", f"{numbers.dtype} {list(numbers.shape)} must be I8")
    return numbers


def _row_scales(layer: StoredLayer) -> Tensor:
    """Scales [rows, 1] or [1, 1]."""
    stored = layer.needed(*SCALES, _OUTLIERS)
    if math.prod(stored.shape) not in (1, layer.shape[0]):
        raise layer.error(
            layer.part_of(stored),
            f"{stored.dtype} {list(stored.shape)} must be one scale, or one per row of the weight "
            f"{list(layer.shape)}",
        )
    scales = _scales(layer, stored).reshape(-1, 1)
    if _OUTLIERS not in layer.tensors:
        return scales
    order = layer.tensor("weight_format")
    if order is not None and whole(order).any():
        raise layer.error("weight_format", "must be 0: rows")
    return scales / 127


def _scales(layer: StoredLayer, stored: Stored) -> Tensor:
    """Its numbers in float32, which rows of zeros may have as zeros."""
    part = layer.part_of(stored)
    if stored.dtype not in PLAIN:
        raise layer.error(part, f"{stored.dtype} must be floating point")
    scales = whole(stored).float()
    wrong = scales[~((scales >= 0) & scales.isfinite())]
    if wrong.numel():
        raise layer.error(part, f"a scale of {wrong[0].item()} must be finite and not negative")
    return scales
