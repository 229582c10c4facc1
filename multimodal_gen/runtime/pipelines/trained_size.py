"""Determines the size that an image model was trained with."""

from __future__ import annotations

from typing import Any

import msgspec

from multimodal_gen.configs.families import FamilyConfig
from multimodal_gen.messages.model_info import Defaults
from multimodal_gen.runtime.loader.checkpoint import Checkpoint


def trained_size(family: FamilyConfig, checkpoint: Checkpoint, denoiser: str) -> Defaults:
    """The family's defaults, with width and height derived from the denoiser's `sample_size`, in
    latents, rounded down to the family's multiple; unchanged without one."""
    sample: Any = checkpoint.config(denoiser).get("sample_size")
    vae = checkpoint.config("vae")
    blocks = vae.get("block_out_channels") or vae.get("encoder_block_out_channels")
    sides = sample if isinstance(sample, list) else [sample, sample]
    if len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        return family.defaults
    pixels = 2 ** (len(blocks) - 1) if isinstance(blocks, list) and blocks else 1
    multiple = family.size_multiple
    height, width = (max(side * pixels // multiple, 1) * multiple for side in sides)
    return msgspec.structs.replace(family.defaults, width=width, height=height)
