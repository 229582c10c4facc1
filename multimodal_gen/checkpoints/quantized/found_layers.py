"""Finds layers of a weight file whose weights are quantised, from the header and what it notes.

A quantised weight consists of several tensors: its numbers, their scales, and notes for kernels.
ComfyUI and the tools that make files for it note the form of each layer, as JSON: in the header's
metadata, or in a small tensor beside the weight. Other files tell it by the types of their tensors.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from multimodal_gen.checkpoints.quantized.bitsandbytes import bitsandbytes_layers
from multimodal_gen.checkpoints.quantized.layer import (
    FORMS,
    SCALES,
    WEIGHTS,
    QuantizedLayer,
    decoded,
    note_in,
)
from multimodal_gen.checkpoints.quantized.quanto import quanto_layers
from multimodal_gen.checkpoints.quantized.torchao import torchao_layers
from multimodal_gen.checkpoints.tensor_info import Header, TensorInfo
from multimodal_gen.errors import InvalidCheckpoint

_SYNONYMS = {
    "float8_e4m3fn_rowwise": "float8_e4m3fn",
    "float8_e4m3fn_blockwise": "float8_e4m3fn",
    "float8_e4m3fn_block3d": "float8_e4m3fn",
    "hybrid_mxfp8": "mxfp8",
    "int8_tensorwise": "int8",
    "int8_rowwise": "int8",
}
"""Names that converters give to the same numbers with other shapes of scales."""
_PARTS = frozenset(
    {
        *WEIGHTS,
        *SCALES,
        "weight_scale_2",
        "weight_global_scale",
        "weight_scalar",
        "pre_quant_scale",
        "comfy_quant",
        "SCB",
        "weight_format",
    }
)
"""Last parts of names of tensors that belong to one quantised weight."""
_UNUSED = frozenset(
    {
        "input_scale",
        "scale_input",
        "input_global_scale",
        "activation_scale",
        "output_scale",
        "scaled_fp8",
    }
)
"""Last parts of names of notes for kernels that compute in float8, and of scales of outputs."""
_FOREIGN = {
    "qweight": "GPTQ, AWQ and SVDQuant (Nunchaku)",
    "W_q": "HQQ",
    "encoded_exponent": "DFloat11",
}
"""Last parts of names that weights have in forms that can't be read."""
_PADDED = ("mxfp8", "nvfp4")
"""Forms whose numbers converters pad to whole blocks of rows and columns."""
_ATTENTION = ".comfy_attention.config"
"""End of the name of a note on which of ComfyUI's kernels computes an attention."""
_NOTE = "comfy_quant"
_METADATA = "_quantization_metadata"
_MARKER = "scaled_fp8"
"""Name of an empty tensor by which ComfyUI recognised its older files. If it has two numbers, then
products are to be computed in full precision."""
_FULL_PRECISION = "full_precision_matrix_mult"
_PREFIXES = ("", "model.diffusion_model.", "diffusion_model.", "model.")
"""Prefixes of tensors' names that either they or the notes may lack."""


@dataclass(frozen=True)
class _Notes:
    layers: Mapping[str, Mapping[str, Any]]
    common: Mapping[str, Any]


def quantized_layers(
    headers: Sequence[Header], settings: Mapping[str, Any] | None = None
) -> dict[str, QuantizedLayer]:
    """Layers with quantised weights in the files of a component, by name. `settings` apply to all
    of them, unless a file notes others.

    Raises InvalidCheckpoint that names layer and form: for notes that can't be read, for unknown
    forms, and for scales without a weight.
    """
    headers = [header for header in headers if header.format == "safetensors"]
    _check_foreign(headers)
    libraries = (*torchao_layers(headers), *bitsandbytes_layers(headers), *quanto_layers(headers))
    found = {layer.name: layer for layer in libraries}
    groups = {name: group for name, group in _groups(headers).items() if name not in found}
    notes, biases = _notes(headers, groups), _all(headers)
    for name, tensors in groups.items():
        own = {**(settings or {}), **notes.common, **notes.layers.get(name, {})}
        form = own.pop("format", None) or _implied(tensors)
        if form is not None:
            layer = _checked(QuantizedLayer(name, form, tensors, own), headers[0])
            found[name] = _without_padding(layer, biases.get(f"{name}.bias"))
    return found


def _check_foreign(headers: Sequence[Header]) -> None:
    for header in headers:
        for name in header.tensors:
            if form := _FOREIGN.get(name.rpartition(".")[2]):
                raise InvalidCheckpoint(
                    f"{header.path.name}: {name:.100}: the form of {form} is not supported; "
                    f"{', '.join(FORMS)} are"
                )


def _without_padding(layer: QuantizedLayer, bias: TensorInfo | None) -> QuantizedLayer:
    """The layer with the rows that its bias has: converters fill blocks up, and seldom note it."""
    if bias is None or len(bias.shape) != 1 or layer.form not in _PADDED:
        return layer
    own = [*bias.shape, *layer.shape[1:]]
    return replace(layer, settings={"orig_shape": own, **layer.settings})


def is_unused(name: str) -> bool:
    """True for the name of a tensor that only kernels of others use."""
    return name.rpartition(".")[2] in _UNUSED or name.endswith(_ATTENTION)


def understood(header: Header, settings: Mapping[str, Any] | None = None) -> Header:
    """The header with one tensor for each quantised weight. Raises InvalidCheckpoint."""
    return replace(header, tensors=logical_tensors([header], settings))


def logical_tensors(
    headers: Sequence[Header], settings: Mapping[str, Any] | None = None
) -> dict[str, TensorInfo]:
    """Tensors of a component's files, with one for each quantised weight, whose type is its form.

    Raises InvalidCheckpoint.
    """
    layers = quantized_layers(headers, settings)
    owners = {layer.name_of(part): layer for layer in layers.values() for part in layer.tensors}
    tensors = {}
    for name, info in _all(headers).items():
        layer = owners.get(name)
        if layer is not None:
            tensors[f"{layer.name}.weight"] = layer.info
        elif not is_unused(name):
            tensors[name] = info
    return tensors


def _all(headers: Sequence[Header]) -> dict[str, TensorInfo]:
    return {name: info for header in headers for name, info in header.tensors.items()}


def _groups(headers: Sequence[Header]) -> dict[str, dict[str, TensorInfo]]:
    """Tensors that may be part of a quantised weight, by layer and last part of the name."""
    groups: defaultdict[str, dict[str, TensorInfo]] = defaultdict(dict)
    for name, info in _all(headers).items():
        layer, _, part = name.rpartition(".")
        if part in _PARTS:
            groups[layer][part] = info
    return groups


def _implied(tensors: Mapping[str, TensorInfo]) -> str | None:
    """Form that the types of a layer's tensors imply; None for a plain weight."""
    weight = next((tensors[part] for part in WEIGHTS if part in tensors), None)
    scale = next((tensors[part] for part in SCALES if part in tensors), None)
    match weight and weight.dtype, scale and scale.dtype:
        case "F8_E4M3", "U8" | "F8_E8M0":
            return "mxfp8"
        case "F8_E4M3", _:
            return "float8_e4m3fn"
        case "F8_E5M2", _:
            return "float8_e5m2"
        case "U8", "F8_E4M3":
            return "nvfp4"
        case "U8", _ if tensors.keys() & {"weight_scale_2", "weight_global_scale"}:
            return "nvfp4"
        case "I8", _ if scale or "SCB" in tensors:
            return "int8"
        case _, None:
            return None
    return "scaled"


def _checked(layer: QuantizedLayer, header: Header) -> QuantizedLayer:
    where = f"{header.path.name}: {layer.name:.100}"
    layer = replace(layer, form=_SYNONYMS.get(layer.form, layer.form))
    if layer.form == "int8" and layer.settings.get("convrot"):
        layer = replace(layer, form="int8-ConvRot")
    if layer.form not in FORMS:
        raise InvalidCheckpoint(
            f"{where}: form {layer.form!r:.40} is not supported; {', '.join(FORMS)} are"
        )
    if not layer.tensors.keys() & set(WEIGHTS):
        raise InvalidCheckpoint(
            f"{where} ({layer.form}): has {', '.join(layer.tensors)}, but no weight"
        )
    return layer


# -- what the file notes


def _notes(headers: Sequence[Header], groups: Mapping[str, Mapping[str, TensorInfo]]) -> _Notes:
    layers: dict[str, dict[str, Any]] = {}
    full = False
    for header in headers:
        layers |= _from_metadata(header, groups)
        for name, info in header.tensors.items():
            layer, _, part = name.rpartition(".")
            if part == _NOTE:
                where = f"{header.path.name}: {name:.100}"
                layers[layer] = _settings(note_in(header, name, info), where)
            full |= part == _MARKER and math.prod(info.shape) == 2
    return _Notes(layers, {_FULL_PRECISION: True} if full else {})


def _from_metadata(
    header: Header, groups: Mapping[str, Mapping[str, TensorInfo]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    text = header.metadata.get(_METADATA)
    if text is None:
        return
    noted = decoded(text.encode(), f"{header.path.name}: {_METADATA}").get("layers")
    if not isinstance(noted, dict):
        raise InvalidCheckpoint(f"{header.path.name}: {_METADATA}: has no layers")
    for name, settings in noted.items():
        where = f"{header.path.name}: {_METADATA}: {name:.100}"
        own = _settings(settings, where)
        names = (each for p in _PREFIXES for each in (p + name, name.removeprefix(p)))
        known = next((each for each in names if each in groups), None)
        if known is None:
            raise InvalidCheckpoint(f"{where} ({own['format']:.40}): there is no such weight")
        yield known, own


def _settings(noted: object, where: str) -> dict[str, Any]:
    """Settings of a layer, those in `params` included. Some files note just the name of a form."""
    if isinstance(noted, str):
        noted = {"format": noted}
    if not isinstance(noted, dict) or not isinstance(noted.get("format"), str):
        raise InvalidCheckpoint(f"{where}: {noted!s:.60} must name a format")
    params = noted.get("params")
    return {**(params if isinstance(params, dict) else {}), **noted}
