"""Memory that the weights of published checkpoints take, from their numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from multimodal_gen.checkpoints.tensor_info import TensorInfo
from multimodal_gen.configs.families import FamilyConfig
from multimodal_gen.configs.families.published import MILLION, PublishedModel
from multimodal_gen.entrypoints.cli.checkpoint.kept_size import KeptWeights
from multimodal_gen.entrypoints.cli.checkpoint.memory_forecast import used_together

Bits = Literal[16, 8, 4]
"""Of a weight: as published, or with `--quantization` int8 or fp8, or nf4."""
FORMS: tuple[Bits, ...] = (16, 8, 4)
_WIDTH = 2
"""Bytes of a number in bfloat16."""
_BYTES: Mapping[Bits, float] = {16: 2, 8: 1, 4: 1 / 2 + 4 / 64}
"""Of a weight that is quantized; nf4 has a scale of 4 bytes for each 64 weights."""


class WeightMemory(NamedTuple):
    """Bytes of a checkpoint's weights on a GPU, without activations."""

    whole: int
    """Of all components."""
    at_once: int
    """Of those that are needed at once, in the phase that needs most."""


def weight_memory(family: FamilyConfig, model: PublishedModel, bits: Bits) -> WeightMemory | None:
    """Memory of a model's weights in a form; None if their numbers are not known."""
    if not model.weights:
        return None
    sizes = {
        name: weight_bytes(count.all * MILLION, count.quantized * MILLION, bits)
        for name, count in model.weights.items()
    }
    groups = used_together(family, [*sizes])
    at_once = max(sum(sizes[name] for name in names) for _, names in groups)
    return WeightMemory(sum(sizes.values()), at_once)


def weight_bytes(whole: int, quantized: int, bits: Bits) -> int:
    """Bytes of a component with `whole` weights, `quantized` of them in layers that are."""
    in_form = 0 if bits == 16 else quantized
    tensors = {
        "plain": TensorInfo("BF16", (whole - in_form,), 0, 0),
        "quantized": TensorInfo(f"{bits} bits", (in_form, 1), 0, int(in_form * _BYTES[bits])),
    }
    return sum(KeptWeights(tensors, _WIDTH, is_cpu=False).size)
