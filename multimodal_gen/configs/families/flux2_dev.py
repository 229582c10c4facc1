"""FLUX.2 dev: FLUX.2 with guidance as an input, whose text encoder is a Mistral 3."""

from dataclasses import replace

import msgspec

from multimodal_gen.configs.families.components import HEAD, encoder, tokenizer
from multimodal_gen.configs.families.flux2 import FLUX2, GUIDANCE, LAYOUTS
from multimodal_gen.configs.families.single_file import of_another

FLUX2_DEV = replace(
    FLUX2,
    name="flux2_dev",
    title="FLUX.2 dev",
    pipeline_classes=("Flux2Pipeline",),
    components={
        **FLUX2.components,
        "tokenizer": tokenizer("PixtralProcessor"),
        "text_encoder": encoder(
            "Mistral3ForConditionalGeneration",
            idle=(HEAD, "model.vision_tower", "model.multi_modal_projector"),
            depth=31,
        ),
    },
    tasks=("text-to-image", "image-edit"),
    defaults=msgspec.structs.replace(
        FLUX2.defaults, num_inference_steps=50, guidance_scale=4.0, inpainting_strength=None
    ),
    limits=FLUX2.limits,
    single_files=of_another(
        LAYOUTS,
        "black-forest-labs/FLUX.2-dev",
        **{style: {name: ()} for style, name in GUIDANCE.items()},
    ),
)
