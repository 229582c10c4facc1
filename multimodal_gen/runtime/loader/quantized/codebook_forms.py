"""Reads weights of 4-bit indices into a table: nf4 and fp4 of bitsandbytes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.quantized.codebook import (
    CodebookStorage,
    NestedScales,
    PlainScales,
)
from multimodal_gen.runtime.layers.quantized.storage import Storage
from multimodal_gen.runtime.loader.quantized.stored_layer import (
    PLAIN,
    KeptNumbers,
    StoredLayer,
    whole,
)


@dataclass(frozen=True)
class _Nested:
    indices: Tensor
    table: Tensor
    outer: Tensor
    offset: Tensor
    block: int

    def keep(self, start: int, stop: int) -> NestedScales:
        first = start // self.block
        outer = self.outer[first : -(-stop // self.block)]
        first = start - first * self.block
        own = self.indices[start:stop]
        return NestedScales(own, self.table, outer, self.offset, self.block, first)


@dataclass(frozen=True)
class _Scales:
    scales: Tensor

    def keep(self, start: int, stop: int) -> PlainScales:
        return PlainScales(self.scales[start:stop])


@dataclass(frozen=True, eq=False)
class CodebookNumbers(KeptNumbers):
    """A quantised weight of 4-bit indices."""

    table: Tensor
    scales: _Nested | _Scales
    block: int

    def keep(self, start: int, stop: int) -> Storage:
        columns = math.prod(self.shape[1:])
        values = whole(self.numbers).reshape(-1).view(torch.uint8).view(-1, columns // 2)
        first, last = start * columns, stop * columns
        scales = self.scales.keep(first // self.block, -(-last // self.block))
        return CodebookStorage(
            self.dtype, values[start:stop], self.table, scales, self.block, first % self.block
        )


def codebook(layer: StoredLayer) -> CodebookNumbers:
    """Raises InvalidCheckpoint."""
    numbers = layer.needed("weight")
    if math.prod(layer.shape[1:]) % 2:
        raise layer.error("weight", f"{list(layer.shape)} must have an even number of columns")
    block = layer.settings["blocksize"]
    blocks = -(-math.prod(layer.shape) // block)
    scales = _nested(layer, blocks) if "nested_absmax" in layer.tensors else _plain(layer, blocks)
    return CodebookNumbers(layer, numbers, _floats(layer, "quant_map", 16), scales, block)


def _plain(layer: StoredLayer, blocks: int) -> _Scales:
    return _Scales(_floats(layer, "absmax", blocks))


def _nested(layer: StoredLayer, blocks: int) -> _Nested:
    """Scales that are 8-bit indices themselves, in larger blocks."""
    stored = layer.needed("absmax")
    if stored.dtype != "U8" or math.prod(stored.shape) != blocks:
        raise _misfit(layer, "absmax", f"{blocks} of U8")
    block, offset = (layer.settings.get(f"nested_{key}") for key in ("blocksize", "offset"))
    if not isinstance(block, int):
        raise layer.error("state", f"nested_blocksize={block!r:.40} must be at least 1")
    if not isinstance(offset, int | float) or not math.isfinite(offset):
        raise layer.error("state", f"nested_offset={offset!r:.40} must be a finite number")
    return _Nested(
        whole(stored).reshape(-1),
        _floats(layer, "nested_quant_map", 256),
        _floats(layer, "nested_absmax", -(-blocks // block)),
        torch.tensor(float(offset)),
        block,
    )


def _floats(layer: StoredLayer, part: str, count: int) -> Tensor:
    """Finite numbers in float32, [count]. Raises InvalidCheckpoint."""
    stored = layer.needed(part)
    if stored.dtype not in PLAIN or math.prod(stored.shape) != count:
        raise _misfit(layer, part, f"{count} floating-point numbers")
    numbers = whole(stored).float().reshape(-1)
    if not numbers.isfinite().all():
        raise layer.error(part, "must be finite")
    return numbers


def _misfit(layer: StoredLayer, part: str, wanted: str) -> Exception:
    stored = layer.tensors[part]
    found = f"{stored.dtype} {list(stored.shape)}"
    return layer.error(part, f"{found} must be {wanted} for the weight {list(layer.shape)}")
