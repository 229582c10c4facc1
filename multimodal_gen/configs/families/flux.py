"""FLUX.1: dev (guidance is an input of the model) and schnell (distilled to four steps)."""

import msgspec

from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.messages.model_info import Defaults, Limits

FLUX = FamilyConfig(
    name="flux",
    title="FLUX.1",
    pipeline_classes=("FluxPipeline",),
    tasks=("text-to-image",),
    parameters=("true_cfg_scale", "max_sequence_length"),
    size_multiple=16,
    defaults=Defaults(
        width=1024,
        height=1024,
        num_inference_steps=28,
        guidance_scale=3.5,
        true_cfg_scale=1.0,
        max_sequence_length=512,
    ),
    limits=Limits(max_pixels=2048 * 2048, max_sequence_length=512),
    schedulers=("flow_euler", "flow_heun", "unipc"),
    ulysses=True,
)

SCHNELL_DEFAULTS = msgspec.structs.replace(
    FLUX.defaults, num_inference_steps=4, guidance_scale=0.0, max_sequence_length=256
)
"""For checkpoints that take no guidance."""
