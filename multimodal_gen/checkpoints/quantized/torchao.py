"""Weights that torchao flattened into the tensors of a safetensors file.

https://github.com/pytorch/ao/tree/main/torchao/prototype/safetensors: the header's metadata tell,
as JSON under the name of each tensor, the class that it had, and what it consisted of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from multimodal_gen.checkpoints.quantized.layer import QuantizedLayer, decoded
from multimodal_gen.checkpoints.tensor_info import Header, TensorInfo
from multimodal_gen.errors import InvalidCheckpoint

_NAMES = "tensor_names"
_PLAIN = "Tensor"
_ROLES = {"qdata": "weight", "scale": "weight_scale", "zero_point": "weight_zero_point"}
_FLOAT8 = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
_UNUSED = ("act_quant_scale", "act_quant_zero_point")
"""Constants for inputs, which are quantised token by token here."""


def torchao_layers(headers: Sequence[Header]) -> Iterator[QuantizedLayer]:
    """Find layers of torchao's classes. Raises InvalidCheckpoint for others."""
    everything = {name: info for header in headers for name, info in header.tensors.items()}
    for header in headers:
        for name, text in header.metadata.items():
            if _NAMES in header.metadata and name not in (_NAMES, "format"):
                where = f"{header.path.name}: {name:.100}"
                noted = decoded(text.encode(), where)
                if noted.get("_type") != _PLAIN:
                    yield _layer(name, noted, everything, where)


def _layer(
    name: str, noted: Mapping[str, Any], everything: Mapping[str, TensorInfo], where: str
) -> QuantizedLayer:
    kind, data, held = (noted.get(key) for key in ("_type", "_data", "_tensor_data_names"))
    layer, _, own = name.rpartition(".")
    read = _CLASSES.get(kind) if isinstance(kind, str) else None
    if read is None or own != "weight":
        raise InvalidCheckpoint(
            f"{where}: torchao's {kind!s:.60} is not supported; {', '.join(_CLASSES)} of a weight "
            "are"
        )
    if not isinstance(data, dict) or not isinstance(held, list):
        raise InvalidCheckpoint(f"{where}: _data and _tensor_data_names are missing ({kind})")
    names = {_ROLES.get(str(each), str(each)): f"{layer}._weight_{each}" for each in held}
    missing = [each for each in names.values() if each not in everything]
    if missing or not {"weight", "weight_scale"} <= names.keys():
        listed = ", ".join(missing) or "qdata or scale"
        raise InvalidCheckpoint(f"{where}: {listed:.200} is missing ({kind})")
    if unknown := sorted(names.keys() - {*_ROLES.values(), *_UNUSED}):
        raise InvalidCheckpoint(f"{where}: {unknown[0]:.60} is not supported ({kind})")
    tensors = {part: everything[each] for part, each in names.items()}
    form, settings = read(tensors["weight"], data, where)
    *rows, columns = tensors["weight"].shape or (1,)
    shape = (*rows, columns * 2) if form == "int4" else (*rows, columns)
    return QuantizedLayer(layer, form, tensors, settings, names, shape)


_Read = Callable[[TensorInfo, Mapping[str, Any], str], tuple[str, dict[str, Any]]]


def _int8(weight: TensorInfo, data: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """Without settings for inputs, they are not quantised."""
    return "int8", {"full_precision_matrix_mult": not data.get("act_quant_kwargs")}


def _float8(weight: TensorInfo, data: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    if weight.dtype not in _FLOAT8:
        raise InvalidCheckpoint(
            f"{where}: qdata is {weight.dtype}; {', '.join(_FLOAT8)} are allowed (Float8Tensor)"
        )
    return _FLOAT8[weight.dtype], {"block_size": data.get("block_size")}


def _named(form: str) -> _Read:
    return lambda weight, data, where: (form, {})


_CLASSES: Mapping[str, _Read] = {
    "Int8Tensor": _int8,
    "Float8Tensor": _float8,
    "Int4Tensor": _named("int4"),
    "IntxUnpackedToInt8Tensor": _named("intx"),
}
"""Form and settings that a class implies."""
