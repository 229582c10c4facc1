"""Reads weights of integers with a scale, and perhaps a shift, for each group of columns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.quantized.grouped import GroupedStorage
from multimodal_gen.runtime.layers.quantized.storage import Storage
from multimodal_gen.runtime.loader.quantized.stored_layer import (
    PLAIN,
    KeptNumbers,
    StoredLayer,
    whole,
)

_BYTES = ("I8", "U8")
_PACKED = "int4"
_OFFSET = "weight_zero_point"


@dataclass(frozen=True, eq=False)
class GroupedNumbers(KeptNumbers):
    """A quantised weight of integers in groups."""

    scales: Tensor
    offsets: Tensor | None

    def keep(self, start: int, stop: int) -> Storage:
        values = self.numbers.rows(start, stop)
        values = values.view(torch.uint8 if self.dtype == _PACKED else torch.int8)
        own = None if self.offsets is None else self.offsets[start:stop]
        kind = "shifts" if self.dtype == _PACKED else "zeros"
        return GroupedStorage(self.dtype, values, self.scales[start:stop], **{kind: own})


def grouped(layer: StoredLayer) -> GroupedNumbers:
    """torchao's integers: W = q * scale + zero in packed ones, (q - zero) * scale in others.

    Raises InvalidCheckpoint.
    """
    numbers = layer.needed("weight")
    if numbers.dtype not in _BYTES or len(numbers.shape) != 2:
        found = f"{numbers.dtype} {list(numbers.shape)}"
        raise layer.error("weight", f"{found} must be a matrix of bytes")
    scales, offsets = _in_groups(layer, "weight_scale"), None
    if _OFFSET in layer.tensors:
        offsets = _in_groups(layer, _OFFSET)
        if offsets.shape != scales.shape:
            found = f"{list(offsets.shape)} must be {list(scales.shape)}, as of the scales"
            raise layer.error(_OFFSET, found)
    return GroupedNumbers(layer, numbers, scales, offsets)


def _in_groups(layer: StoredLayer, part: str) -> Tensor:
    """Its numbers as [rows, groups]."""
    stored = layer.needed(part)
    allowed = (*PLAIN, "I8") if part == _OFFSET else PLAIN
    rows, columns = layer.shape
    shape = stored.shape[::-1] if layer.form == _PACKED else stored.shape
    fits = len(shape) == 2 and 0 < shape[1] <= columns and not columns % shape[1]
    if stored.dtype not in allowed or not fits or not shape[0] or rows % shape[0]:
        raise layer.error(
            part,
            f"{stored.dtype} {list(stored.shape)} must be numbers for groups of the weight "
            f"{list(layer.shape)}",
        )
    numbers = whole(stored)
    if numbers.is_floating_point() and not numbers.isfinite().all():
        raise layer.error(part, "must be finite")
    numbers = numbers.T if layer.form == _PACKED else numbers
    return numbers.repeat_interleave(rows // shape[0], 0) if shape[0] < rows else numbers
