"""Converts FLUX.1's original names to diffusers'. (Its own converter only supports the published
width.)"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from multimodal_gen.runtime.loader.original.flux import NAMES
from multimodal_gen.runtime.loader.original.table import SHIFT_FIRST

_BLOCK = re.compile(r"(?<=_blocks\.)\d+")


def flux_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert names; those that are not FLUX.1's are left out."""
    width = len(tensors["img_in.weight"])
    converted: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        if kind not in ("weight", "bias", "scale"):
            continue
        block = _BLOCK.search(module)
        theirs = NAMES.get(_BLOCK.sub("#", module), "")
        if theirs.startswith(SHIFT_FIRST):
            theirs, tensor = theirs.removeprefix(SHIFT_FIRST), torch.cat(tensor.chunk(2)[::-1])
        modules = theirs.replace("#", block[0] if block else "").split()
        sizes = [width] * (len(modules) - 1)
        kind = "weight" if kind == "scale" else kind
        parts = tensor.split([*sizes, len(tensor) - sum(sizes)])
        converted |= {f"{new}.{kind}": part for new, part in zip(modules, parts, strict=False)}
    return converted
