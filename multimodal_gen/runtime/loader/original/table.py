"""Tables of names that the authors of a model give to the modules of diffusers' denoiser.

ComfyUI, kohya's scripts and many trainers use them in LoRA files. A table maps an original name to
diffusers' name, or to several with spaces between them, which its rows are split into. `#` is the
number of a block, `$` that of the last one.
"""

from __future__ import annotations

from collections.abc import Mapping

NameTable = Mapping[str, str]
SHIFT_FIRST = "<"
"""Marks a layer whose output is shift and scale, and in diffusers scale and shift."""
TO_QKV = "attn.to_q attn.to_k attn.to_v"
ADD_QKV = "attn.add_q_proj attn.add_k_proj attn.add_v_proj"


def prefixed(ours: str, names: NameTable, theirs: str) -> dict[str, str]:
    """The table with `ours` before its original names and `theirs` before diffusers'."""
    return {
        f"{ours}{name}": " ".join(f"{theirs}{other}" for other in others.split())
        for name, others in names.items()
    }
