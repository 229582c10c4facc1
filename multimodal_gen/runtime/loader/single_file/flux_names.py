"""Converts original names of FLUX.1 and Chroma to diffusers'. (Its own converters only support the
published width.)"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from multimodal_gen.runtime.loader.original.flux import NAMES
from multimodal_gen.runtime.loader.original.table import SHIFT_FIRST, NameTable

_BLOCK = re.compile(r"(?<=_blocks\.)\d+|(?<=\.layers\.)\d+|(?<=\.norms\.)\d+")


def flux_names(tensors: dict[str, Tensor], *, names: NameTable = NAMES) -> dict[str, Tensor]:
    """Convert names; those that are not in the table are left out."""
    width = len(tensors["img_in.weight"])
    converted: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        if kind not in ("weight", "bias", "scale"):
            continue
        block = _BLOCK.search(module)
        theirs = names.get(_BLOCK.sub("#", module), "")
        if theirs.startswith(SHIFT_FIRST):
            theirs, tensor = theirs.removeprefix(SHIFT_FIRST), torch.cat(tensor.chunk(2)[::-1])
        modules = theirs.replace("#", block[0] if block else "").split()
        sizes = [width] * (len(modules) - 1)
        kind = "weight" if kind == "scale" else kind
        parts = tensor.split([*sizes, len(tensor) - sum(sizes)])
        converted |= {f"{new}.{kind}": part for new, part in zip(modules, parts, strict=False)}
    return converted
