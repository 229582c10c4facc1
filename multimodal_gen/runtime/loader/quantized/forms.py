"""Chooses how a quantised weight is read, by the name of its form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from multimodal_gen.checkpoints.header import read_header
from multimodal_gen.checkpoints.quantized.found_layers import is_unused, quantized_layers
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.quantized.codebook_forms import codebook
from multimodal_gen.runtime.loader.quantized.grouped_forms import grouped
from multimodal_gen.runtime.loader.quantized.int8_forms import int8, int8_blocks, int8_rotated
from multimodal_gen.runtime.loader.quantized.scaled_forms import float8, mxfp8, nvfp4, scaled
from multimodal_gen.runtime.loader.quantized.stored_layer import StoredLayer
from multimodal_gen.runtime.loader.tensors.safetensors_file import open_safetensors
from multimodal_gen.runtime.loader.tensors.stored import Quantized, Stored

READERS: Mapping[str, Callable[[StoredLayer], Quantized]] = {
    "float8_e4m3fn": partial(float8, dtype=torch.float8_e4m3fn),
    "float8_e5m2": partial(float8, dtype=torch.float8_e5m2),
    "mxfp8": mxfp8,
    "nvfp4": nvfp4,
    "int8": int8,
    "int8-ConvRot": int8_rotated,
    "int8_blockwise": int8_blocks,
    "int4": grouped,
    "intx": grouped,
    "nf4": codebook,
    "fp4": codebook,
    "scaled": scaled,
}
"""Readers of layers in each of `checkpoints.quantized.layer.FORMS`."""


@contextmanager
def open_weights(
    files: Sequence[Path], name: str, settings: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Stored]]:
    """Yield the tensors of safetensors files, while they are open, with one for each quantised
    weight instead of its parts.

    `name` is the component in errors, `settings` are those of `quantized_layers`. Raises
    InvalidCheckpoint.
    """
    layers = quantized_layers([read_header(file) for file in files], settings)
    with open_safetensors(files, name) as stored:
        found = {key: tensor for key, tensor in stored.items() if not is_unused(key)}
        for layer in layers.values():
            tensors = {part: found.pop(layer.name_of(part)) for part in layer.tensors}
            whole = StoredLayer(
                layer.name, layer.form, layer.shape, tensors, layer.settings, layer.names
            )
            with _naming(files[0].name if len(files) == 1 else name):
                found[f"{layer.name}.weight"] = READERS[layer.form](whole)
        yield found


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Say in errors where they are."""
    try:
        yield
    except InvalidCheckpoint as error:
        raise InvalidCheckpoint(f"{where}: {error}") from error
