"""Quantises the weights of linear layers while they are loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from multimodal_gen.configs.quantization import Quantization
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.layers.quantized.block_scales import BlockScales
from multimodal_gen.runtime.layers.quantized.codebook import NF4, CodebookStorage, PlainScales
from multimodal_gen.runtime.layers.quantized.columns import cut_columns
from multimodal_gen.runtime.layers.quantized.int8 import Int8Storage
from multimodal_gen.runtime.layers.quantized.int8_product import quantized_rows
from multimodal_gen.runtime.layers.quantized.scaled import ScaledStorage
from multimodal_gen.runtime.layers.quantized.storage import Storage
from multimodal_gen.runtime.layers.quantized.unpacking import multiplied_storages
from multimodal_gen.runtime.layers.take import Segment, Sources
from multimodal_gen.runtime.loader.tensors.sources import StoredSources
from multimodal_gen.runtime.loader.tensors.stored import Stored, pieces

_FLOAT8 = torch.float8_e4m3fn
_NF4_BLOCK = 64
_STORED = {"fp8": "float8_e4m3fn"}
"""Names of storages' forms that differ from those of arguments."""
_EXACT = ("*norm*", "*embed*", "*mod*ulation*", "*time*", "*adaln*", "*lm_head", "*proj_out.0")
"""Layers of a library's repeated blocks that stay as they are."""

_NONE: Mapping[Quantization, str] = {
    "int8": "none of its layers is of a kind that is quantized",
    "fp8": "none of its layers is of a kind that is quantized",
    "nf4": f"no layer that is quantized has rows of a multiple of {_NF4_BLOCK} numbers",
}

Pieces = Iterator[tuple[slice, Tensor]]
"""Rows of a weight and their numbers, in float32 on the layer's device."""


LARGE_ENCODER = 1 << 30
"""Weights from which on a text encoder is quantised."""


def when_loaded(name: str, form: Quantization | None) -> WhenLoaded | None:
    """Choose how to quantise a component by its name: denoisers, and large text encoders, whose
    inputs stay as they are since some of them stand out. VAEs and others are not quantised."""
    if form is not None and name.startswith(("transformer", "unet")):
        return WhenLoaded(form, quantizes_inputs=True)
    if form is not None and name.startswith("text_encoder"):
        return WhenLoaded(form, quantizes_inputs=False, least=LARGE_ENCODER)
    return None


def without_effect(components: Mapping[str, object], form: Quantization) -> Iterator[str]:
    """Yield a warning for each of these components that has no weight in the form asked for."""
    for name, component in components.items():
        forms = {storage.form for storage in multiplied_storages(component)}
        if _STORED.get(form, form) not in forms:
            why = f"its weights are {', '.join(sorted(forms))} already" if forms else _NONE[form]
            yield f"quantization={form!r}: no effect on {name}: {why}"


@dataclass(frozen=True)
class WhenLoaded:
    """Quantises a component's weights while it is loaded."""

    form: Quantization
    quantizes_inputs: bool
    """True if products of int8 quantise inputs, too."""
    least: int = 0
    """Weights of a module from which on it is quantised."""

    def sources(self, as_stored: StoredSources) -> Sources:
        """Sources of a weight that is to be quantised."""
        return QuantizedSources(self, as_stored)

    def layers(self, module: nn.Module) -> set[str]:
        """Names of the layers to quantise.

        Of ours all but those that the class names in `keep_exact`, as patterns; of a library's
        those in repeated blocks, but for norms, embeddings and modulation.
        """
        if sum(parameter.numel() for parameter in module.parameters()) < self.least:
            return set()
        own = getattr(module, "keep_exact", None)
        repeated = tuple(
            f"{name}." for name, each in module.named_modules() if isinstance(each, nn.ModuleList)
        )
        return {
            name
            for name, layer in module.named_modules()
            if (type(layer) is nn.Linear or (isinstance(layer, Linear) and len(layer.whole) == 2))
            and (own is not None or name.startswith(repeated))
            and not any(fnmatchcase(name, pattern) for pattern in (own or _EXACT))
        }

    def storage(
        self, tensors: Sequence[Stored], shape: torch.Size, device: torch.device
    ) -> Storage:
        rows, columns = shape
        found = _pieces(tensors, columns, device)
        if self.form == "int8":
            return _int8(found, rows, columns, device, self.quantizes_inputs)
        return _OTHERS[self.form](found, rows, columns, device)

    def fits(self, tensors: Sequence[Stored], shape: torch.Size) -> bool:
        """False for a weight that is quantised already, or that has no whole blocks."""
        plain = all(tensor.dtype in ("F64", "F32", "F16", "BF16") for tensor in tensors)
        matrix = len(shape) == 2 and all(tensor.shape[1:] == shape[1:] for tensor in tensors)
        return plain and matrix and (self.form != "nf4" or shape[1] % _NF4_BLOCK == 0)


@dataclass(frozen=True)
class QuantizedSources:
    """Sources of a weight that is quantised while it is loaded, unless it is in another form."""

    how: WhenLoaded
    as_stored: StoredSources

    @property
    def segments(self) -> Sequence[Segment]:
        return self.as_stored.segments

    def rows(self, own: Sequence[range]) -> Sources:
        return replace(self, as_stored=self.as_stored.rows(own))

    def columns(self, own: Sequence[range]) -> Sources:
        return self.as_stored.columns(own)

    def read(self, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
        return self.as_stored.read(shape, dtype, device)

    def storages(
        self, shape: torch.Size, dtype: torch.dtype, device: torch.device
    ) -> Sequence[Storage]:
        tensors = [*self.as_stored.tensors.values()]
        if tensors and self.how.fits(tensors, shape):
            return [self.how.storage(tensors, shape, device)]
        return self.as_stored.storages(shape, dtype, device)

    def column_storages(
        self, own: Sequence[range], shape: torch.Size, dtype: torch.dtype, device: torch.device
    ) -> tuple[Sequence[Storage], Sequence[range]]:
        if not self.how.fits([*self.as_stored.tensors.values()], shape):
            return self.as_stored.column_storages(own, shape, dtype, device)
        return cut_columns(self.storages(shape, dtype, device), own)


def _pieces(tensors: Sequence[Stored], columns: int, device: torch.device) -> Pieces:
    start = 0
    for piece in pieces(tensors, columns):
        yield slice(start, start + len(piece)), piece.to(device).float()
        start += len(piece)


def _int8(
    found: Pieces, rows: int, columns: int, device: torch.device, quantizes_inputs: bool
) -> Storage:
    values = torch.empty(rows, columns, dtype=torch.int8, device=device)
    scales = torch.empty(rows, 1, device=device)
    for part, numbers in found:
        values[part], scales[part] = quantized_rows(numbers)
    return Int8Storage(values, scales, quantizes_inputs=quantizes_inputs)


def _float8(found: Pieces, rows: int, columns: int, device: torch.device) -> Storage:
    values = torch.empty(rows, columns, dtype=_FLOAT8, device=device)
    scales = torch.empty(rows, 1, device=device)
    for part, numbers in found:
        own = numbers.abs().amax(1, keepdim=True).div_(torch.finfo(_FLOAT8).max)
        scales[part] = own.clamp_(min=1e-30)
        values[part] = (numbers / scales[part]).to(_FLOAT8)
    return ScaledStorage("float8_e4m3fn", values, scales=BlockScales(scales, (1, columns)))


def _nf4(found: Pieces, rows: int, columns: int, device: torch.device) -> Storage:
    table = torch.tensor(NF4, device=device)
    between = (table[1:] + table[:-1]) / 2
    values = torch.empty(rows, columns // 2, dtype=torch.uint8, device=device)
    scales = torch.empty(rows, columns // _NF4_BLOCK, device=device)
    for part, numbers in found:
        blocks = numbers.unflatten(1, (-1, _NF4_BLOCK))
        scales[part] = blocks.abs().amax(2).clamp_(min=1e-30)
        indices = torch.bucketize(blocks / scales[part][:, :, None], between, out_int32=True)
        pairs = indices.flatten(1).unflatten(1, (-1, 2)).byte()
        values[part] = pairs[:, :, 0] << 4 | pairs[:, :, 1]
    return CodebookStorage("nf4", values, table, PlainScales(scales.flatten()), _NF4_BLOCK)


_OTHERS: Mapping[str, Callable[[Pieces, int, int, torch.device], Storage]] = {
    "fp8": _float8,
    "nf4": _nf4,
}
