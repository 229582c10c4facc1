"""Chooses how a quantised weight is read, by the name of its form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch

from multimodal_gen.checkpoints.quantized_layers import QuantizedLayer, is_unused
from multimodal_gen.runtime.loader.quantized.scaled_forms import float8, mxfp8, nvfp4, scaled
from multimodal_gen.runtime.loader.quantized.stored_layer import StoredLayer
from multimodal_gen.runtime.loader.tensors.stored import Quantized, Stored

READERS: Mapping[str, Callable[[StoredLayer], Quantized]] = {
    "float8_e4m3fn": partial(float8, dtype=torch.float8_e4m3fn),
    "float8_e5m2": partial(float8, dtype=torch.float8_e5m2),
    "mxfp8": mxfp8,
    "nvfp4": nvfp4,
    "scaled": scaled,
}
"""What reads a layer in each of `checkpoints.quantized_layers.FORMS`."""


def with_forms(
    stored: Mapping[str, Stored], layers: Mapping[str, QuantizedLayer]
) -> dict[str, Stored]:
    """The tensors of a file with one for each quantised weight, `NAME.weight`, instead of its
    parts. Raises InvalidCheckpoint."""
    found = {name: tensor for name, tensor in stored.items() if not is_unused(name)}
    for layer in layers.values():
        tensors = {part: found.pop(f"{layer.name}.{part}") for part in layer.tensors}
        whole = StoredLayer(layer.name, layer.form, layer.shape, tensors, layer.settings)
        found[f"{layer.name}.weight"] = READERS[layer.form](whole)
    return found
