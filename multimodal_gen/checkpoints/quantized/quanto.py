"""Weights of 8 bits that optimum-quanto wrote: NAME.weight._data and NAME.weight._scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from multimodal_gen.checkpoints.quantized.layer import QuantizedLayer
from multimodal_gen.checkpoints.tensor_info import Header
from multimodal_gen.errors import InvalidCheckpoint

_DATA = ".weight._data"
_FORMS = {"I8": "int8", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}


def quanto_layers(headers: Sequence[Header]) -> Iterator[QuantizedLayer]:
    """Find layers of 8 bits. Raises InvalidCheckpoint for others."""
    everything = {name: info for header in headers for name, info in header.tensors.items()}
    for data, info in everything.items():
        name = data.removesuffix(_DATA)
        if name == data:
            continue
        scale, form = f"{name}.weight._scale", _FORMS.get(info.dtype)
        if form is None or scale not in everything:
            raise InvalidCheckpoint(
                f"{headers[0].path.name}: {data:.100}: {info.dtype} must be one of "
                f"{', '.join(_FORMS)}, with {scale:.100}"
            )
        tensors = {"weight": info, "weight_scale": everything[scale]}
        names = {"weight": data, "weight_scale": scale}
        # It quantises the inputs of layers only where it was calibrated for that.
        yield QuantizedLayer(name, form, tensors, {"full_precision_matrix_mult": True}, names)
