"""FLUX.1 Fill: FLUX.1 with an image as input, painting inside a mask."""

from dataclasses import replace

import msgspec

from multimodal_gen.configs.families.flux import FLUX
from multimodal_gen.configs.families.single_file import of_another

FLUX_FILL = replace(
    FLUX,
    name="flux_fill",
    title="FLUX.1 Fill",
    pipeline_classes=("FluxFillPipeline",),
    tasks=("inpainting",),
    parameters=("prompt_syntax", "max_sequence_length"),
    defaults=msgspec.structs.replace(
        FLUX.defaults,
        num_inference_steps=50,
        guidance_scale=30.0,
        true_cfg_scale=None,
        strength=None,
        inpainting_strength=1.0,
    ),
    single_files=of_another(
        FLUX.single_files,
        "black-forest-labs/FLUX.1-Fill-dev",
        original={"img_in.weight": (None, 384)},
        diffusers={"x_embedder.weight": (None, 384)},
    ),
)
