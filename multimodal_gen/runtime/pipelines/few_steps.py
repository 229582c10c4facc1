"""Defaults of distilled checkpoints of Stable Diffusion, which take a few steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from multimodal_gen.messages.model_info import Defaults

_TURBO = ("EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler")
_TURBO_SIDE = 64
"""Latents a side that SD-Turbo and SDXL-Turbo were trained with: 512 pixels."""


def few_steps(
    defaults: Defaults, scheduler: Mapping[str, Any], unet: Mapping[str, Any]
) -> Defaults:
    """Defaults as the checkpoint's configs show it to be distilled; else unchanged.

    Latent consistency models have a scheduler of their own. SD-Turbo and SDXL-Turbo have Euler's
    with trailing spacing, at half of SDXL's size, and no guidance.
    """
    name, spacing = scheduler.get("_class_name"), scheduler.get("timestep_spacing")
    if name == "LCMScheduler":
        return msgspec.structs.replace(defaults, num_inference_steps=4, guidance_scale=1.0)
    turbo = name in _TURBO and spacing == "trailing" and unet.get("sample_size") == _TURBO_SIDE
    if turbo and scheduler.get("prediction_type", "epsilon") == "epsilon":
        return msgspec.structs.replace(defaults, num_inference_steps=1, guidance_scale=0.0)
    return defaults
