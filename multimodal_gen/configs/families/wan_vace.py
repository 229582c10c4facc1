"""Wan VACE, 2.1 and 2.2: videos that follow another one, repaint it, or show given things."""

from dataclasses import replace

import msgspec

from multimodal_gen.configs.families.components import native
from multimodal_gen.configs.families.single_file import BaseModel, SingleFile
from multimodal_gen.configs.families.wan import (
    DEFAULTS,
    DIFFUSERS_KEYS,
    LIMITS,
    ORIGINAL_KEYS,
    PARAMETERS,
    WAN,
)

_TRANSFORMER = native("WanVACETransformer3DModel", optional=True)
_BASES = (
    BaseModel("Wan-AI/Wan2.1-VACE-1.3B-diffusers", {"patch_embedding.weight": (1536,)}),
    BaseModel("Wan-AI/Wan2.1-VACE-14B-diffusers"),
)
_SINGLE_FILES = (
    SingleFile(
        denoiser="WanVACETransformer3DModel",
        style="original",
        keys=(*ORIGINAL_KEYS, "vace_blocks.0.after_proj.bias"),
        bases=_BASES,
    ),
    SingleFile(
        denoiser="WanVACETransformer3DModel",
        style="diffusers",
        keys=(*DIFFUSERS_KEYS, "vace_blocks.0.proj_out.weight"),
        bases=_BASES,
    ),
)

VACE_PARAMETERS = ("video_path", "mask_path", "conditioning_scale")

WAN_VACE = replace(
    WAN,
    name="wan_vace",
    title="Wan 2.1 and 2.2 VACE",
    pipeline_classes=("WanVACEPipeline",),
    components={
        **WAN.components,
        "transformer": _TRANSFORMER,
        "transformer_2": _TRANSFORMER,
    },
    tasks=("text-to-video", "video-to-video", "reference-to-video"),
    parameters=(*PARAMETERS, *VACE_PARAMETERS),
    defaults=msgspec.structs.replace(DEFAULTS, conditioning_scale=1.0),
    limits=msgspec.structs.replace(LIMITS, max_images=4),
    single_files=_SINGLE_FILES,
)

VACE_EXPERTS_DEFAULTS = msgspec.structs.replace(
    WAN_VACE.defaults, num_inference_steps=40, guidance_scale=4.0, guidance_scale_2=3.0
)
"""Defaults of models with two experts."""
