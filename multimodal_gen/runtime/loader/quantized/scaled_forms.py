"""float8, MXFP8 and NVFP4: narrow floating-point numbers with scales."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from multimodal_gen.checkpoints.quantized.layer import FORMS, SCALES, WEIGHTS
from multimodal_gen.runtime.layers.quantized.scaled import Float4Storage, ScaledStorage
from multimodal_gen.runtime.layers.quantized.storage import Storage
from multimodal_gen.runtime.loader.quantized.scales import StoredScales, blocks_of, grid_of
from multimodal_gen.runtime.loader.quantized.stored_layer import (
    PLAIN,
    KeptNumbers,
    StoredLayer,
    whole,
)

_FLOAT8 = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
_BYTES = ("U8", "I8")
_ANY_RANK = ("float8_e4m3fn", "float8_e5m2", "scaled")
"""Forms that convolutions and norms may have as well."""
_NVFP4_BLOCK = 16
_MXFP8_BLOCK = 32


@dataclass(frozen=True, eq=False)
class ScaledNumbers(KeptNumbers):
    """Narrow floating-point numbers with scales."""

    dtype_of_bytes: torch.dtype
    make: Callable[..., Storage] = ScaledStorage
    factor: Tensor | None = None
    scales: StoredScales | None = None
    smoothing: Tensor | None = None

    @property
    def has_scales(self) -> bool:
        return self.factor is not None or self.scales is not None

    def keep(self, start: int, stop: int) -> Storage:
        values = self.numbers.rows(start, stop).reshape(stop - start, -1)
        values = values.view(self.dtype_of_bytes) if values.itemsize == 1 else values
        # A converter may have padded the columns.
        values = values[:, : math.prod(self.shape[1:]) // FORMS[self.layer.form]]
        return self.make(
            self.layer.form,
            values,
            factor=self.factor,
            scales=None if self.scales is None else self.scales.keep(start, stop),
            smoothing=self.smoothing,
        )


def float8(layer: StoredLayer, dtype: torch.dtype) -> ScaledNumbers:
    """float8 without scales, or with one in total, per row or per block.

    Inputs may be rounded as well where the file has scales, unless it says otherwise. Those without
    were made to be small, not for such products.
    """
    names = [name for name, each in _FLOAT8.items() if each == dtype]
    found = _with_scales(_numbers(layer, (*names, *_BYTES), dtype))
    exact = bool(layer.settings.get("full_precision_matrix_mult"))
    rounds = found.has_scales and not exact
    return replace(found, make=partial(ScaledStorage, rounds_inputs=rounds))


def scaled(layer: StoredLayer) -> ScaledNumbers:
    """Plain floating point with scales."""
    return _with_scales(_numbers(layer, PLAIN, torch.uint8))


def mxfp8(layer: StoredLayer) -> ScaledNumbers:
    """float8 with an exponent of 2 for each 32 columns.

    https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf
    """
    found = _numbers(layer, ("F8_E4M3", *_BYTES), torch.float8_e4m3fn)
    swizzled = not layer.settings.get("linear_scales", False)
    exponents, stored = torch.float8_e8m0fnu, layer.needed(*SCALES)
    scales = blocks_of(layer, stored, _MXFP8_BLOCK, exponents, swizzled=swizzled)
    return replace(found, scales=scales)


def nvfp4(layer: StoredLayer) -> ScaledNumbers:
    """E2M1 in 4 bits, with a float8 scale for each 16 columns, and one in total.

    ComfyUI's files have the first number of a pair in the high bits of a byte, and scales in tiles;
    others have it in the low bits, and scales in rows.
    """
    found = _numbers(layer, _BYTES, torch.uint8)
    factor, divisor = layer.factor("weight_scale_2"), layer.factor("weight_global_scale")
    linear = bool(layer.settings.get("linear_scales", divisor is not None))
    high_first = bool(layer.settings.get("high_first", not linear))
    stored = layer.needed(*SCALES)
    scales = blocks_of(layer, stored, _NVFP4_BLOCK, torch.float8_e4m3fn, swizzled=not linear)
    if factor is None and divisor is None:
        raise layer.error("weight_scale_2", "is missing")
    return replace(
        found,
        make=partial(Float4Storage, high_first=high_first),
        scales=scales,
        factor=factor if divisor is None else 1 / divisor,
    )


def _numbers(layer: StoredLayer, dtypes: tuple[str, ...], dtype: torch.dtype) -> ScaledNumbers:
    numbers = layer.needed(*WEIGHTS)
    part = layer.part_of(numbers)
    if layer.settings.get("convrot"):
        raise layer.error("comfy_quant", "convrot is supported for int8 only")
    if numbers.dtype not in dtypes:
        raise layer.error(part, f"{numbers.dtype} must be {' or '.join(dtypes)}")
    if layer.form not in _ANY_RANK and len(numbers.shape) != 2:
        raise layer.error(part, f"{list(numbers.shape)} must be a matrix")
    return ScaledNumbers(layer, numbers, dtype, smoothing=_smoothing(layer))


def _smoothing(layer: StoredLayer) -> Tensor | None:
    part = "pre_quant_scale"
    stored = layer.tensor(part)
    if stored is None:
        return None
    if stored.dtype not in PLAIN or math.prod(stored.shape) != layer.shape[-1]:
        raise layer.error(
            part,
            f"{stored.dtype} {list(stored.shape)} must be one per column of the weight "
            f"{list(layer.shape)}",
        )
    return layer.positive(whole(stored).reshape(-1), part)


def _with_scales(found: ScaledNumbers) -> ScaledNumbers:
    layer = found.layer
    stored = layer.tensor(*SCALES)
    if stored is None:
        return found
    if math.prod(stored.shape) == 1:
        return replace(found, factor=layer.factor(*SCALES))
    return replace(found, scales=grid_of(layer, stored))
