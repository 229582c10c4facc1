"""Tables of names that the authors of a model give to the modules of diffusers' denoiser.

ComfyUI, kohya's scripts and many trainers use them in LoRA files. A table maps an original name to
diffusers' name, or to several with spaces between them, which its rows are split into. `#` is the
number of a block, `$` that of the last one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

NameTable = Mapping[str, str]
SHIFT_FIRST = "<"
"""Marks a layer whose output is shift and scale, and in diffusers scale and shift, or other halves
that change places."""
TO_QKV = "attn.to_q attn.to_k attn.to_v"
_NUMBER = re.compile(r"(?<=blocks\.)\d+")
ADD_QKV = "attn.add_q_proj attn.add_k_proj attn.add_v_proj"


def prefixed(ours: str, names: NameTable, theirs: str) -> dict[str, str]:
    """The table with `ours` before its original names and `theirs` before diffusers'."""
    return {
        f"{ours}{name}": " ".join(f"{theirs}{other}" for other in others.split())
        for name, others in names.items()
    }


def converted(tensors: dict[str, Tensor], *, names: NameTable) -> dict[str, Tensor]:
    """Convert names, and split rows evenly; names that are not in the table are left out."""
    found = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        for theirs, rest in ((module, f".{kind}"), (name, "")):
            modules = names.get(_NUMBER.sub("#", theirs), "").split()
            number = _NUMBER.search(theirs)
            parts = tensor.chunk(len(modules)) if modules else ()
            for ours, part in zip(modules, parts, strict=False):
                found[ours.replace("#", number[0] if number else "") + rest] = part
    return found
