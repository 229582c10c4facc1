"""4-bit weights of bitsandbytes: nf4 and fp4.

Beside the weight, a file has the scales of its blocks, which may be quantised themselves, the table
that indices stand for, and sizes as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from multimodal_gen.checkpoints.quantized.layer import QuantizedLayer, note_in
from multimodal_gen.checkpoints.tensor_info import Header, TensorInfo
from multimodal_gen.errors import InvalidCheckpoint

_STATE = ".weight.quant_state.bitsandbytes__"
_PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
_FORMS = ("nf4", "fp4")


def bitsandbytes_layers(headers: Sequence[Header]) -> Iterator[QuantizedLayer]:
    """Find 4-bit layers. Raises InvalidCheckpoint for sizes that are not valid."""
    everything = {name: info for header in headers for name, info in header.tensors.items()}
    for header in headers:
        for name, info in header.tensors.items():
            layer, mark, form = name.rpartition(_STATE)
            if mark:
                state = _state(header, name, info, form)
                tensors = {"weight": f"{layer}.weight", "state": name}
                tensors |= {part: f"{layer}.weight.{part}" for part in _PARTS}
                yield _layer(layer, form, state, tensors, everything, header)


def _state(header: Header, name: str, info: TensorInfo, form: str) -> dict[str, Any]:
    where = f"{header.path.name}: {name:.100}"
    if form not in _FORMS:
        raise InvalidCheckpoint(f"{where}: form {form!r:.40} must be one of {', '.join(_FORMS)}")
    state = note_in(header, name, info)
    sizes = {"blocksize": state.get("blocksize")}
    if "nested_blocksize" in state:
        sizes["nested_blocksize"] = state["nested_blocksize"]
    for key, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise InvalidCheckpoint(f"{where}: {key}={value!r:.40} must be at least 1 ({form})")
    return state


def _layer(
    name: str,
    form: str,
    state: dict[str, Any],
    names: dict[str, str],
    everything: dict[str, TensorInfo],
    header: Header,
) -> QuantizedLayer:
    tensors = {part: everything[each] for part, each in names.items() if each in everything}
    where = f"{header.path.name}: {name:.100}.weight"
    if "weight" not in tensors:
        raise InvalidCheckpoint(f"{where}: is missing ({form})")
    shape = _shape(state.get("shape"))
    numbers = tensors["weight"].size * 2
    if math.prod(shape) != numbers:
        raise InvalidCheckpoint(
            f"{where}: has {numbers} numbers, which are not shape={state.get('shape')!s:.60} "
            f"({form})"
        )
    return QuantizedLayer(name, form, tensors, state, names, shape)


def _shape(noted: object) -> tuple[int, ...]:
    """The shape, or of no numbers if it is none."""
    sizes = noted if isinstance(noted, list) else [0]
    return tuple(size if isinstance(size, int) and size > 0 else 0 for size in sizes)
