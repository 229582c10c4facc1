"""Defaults of distilled checkpoints of Stable Diffusion, which take a few steps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from multimodal_gen.messages.model_info import Defaults

_TURBO = ("EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler")
_TURBO_SIDE = 64
"""Latents a side that SD-Turbo and SDXL-Turbo were trained with: 512 pixels."""
_LIGHTNING = re.compile(r"sdxl[-_]lightning[-_]([1248])[-_]?step")
"""Names of the files of SDXL-Lightning, which say their steps: nothing in them does."""


def few_steps(
    defaults: Defaults, scheduler: Mapping[str, Any], unet: Mapping[str, Any], file: str = ""
) -> Defaults:
    """Defaults as the checkpoint's configs, or the name of its `file`, show it to be distilled;
    else unchanged.

    Latent consistency models have a scheduler of their own. SD-Turbo and SDXL-Turbo have Euler's
    with trailing spacing, at half of SDXL's size, and no guidance.
    """
    if lightning := _LIGHTNING.search(file.lower()):
        steps = int(lightning[1])
        return msgspec.structs.replace(defaults, num_inference_steps=steps, guidance_scale=1.0)
    name, spacing = scheduler.get("_class_name"), scheduler.get("timestep_spacing")
    if name == "LCMScheduler":
        return msgspec.structs.replace(defaults, num_inference_steps=4, guidance_scale=1.0)
    turbo = name in _TURBO and spacing == "trailing" and unet.get("sample_size") == _TURBO_SIDE
    if turbo and scheduler.get("prediction_type", "epsilon") == "epsilon":
        return msgspec.structs.replace(defaults, num_inference_steps=1, guidance_scale=0.0)
    return defaults


def few_step_solver(config: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Scheduler config of SDXL as SDXL-Lightning wants it, if the name of the `file` is one of its;
    else unchanged. Its model for one step predicts the picture."""
    if (lightning := _LIGHTNING.search(file.lower())) is None:
        return dict(config)
    predicted = {"prediction_type": "sample"} if lightning[1] == "1" else {}
    spaced = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}
    return {**config, **spaced, **predicted}
