"""FLUX.1 Kontext: FLUX.1 with an image as input, changing it as the prompt says."""

from dataclasses import replace

import msgspec

from multimodal_gen.configs.families.flux import FLUX
from multimodal_gen.configs.families.single_file import of_another

FLUX_KONTEXT = replace(
    FLUX,
    name="flux_kontext",
    title="FLUX.1 Kontext",
    pipeline_classes=("FluxKontextPipeline",),
    tasks=("text-to-image", "image-edit", "inpainting"),
    defaults=msgspec.structs.replace(FLUX.defaults, strength=None, inpainting_strength=1.0),
    single_files=of_another(FLUX.single_files, "black-forest-labs/FLUX.1-Kontext-dev"),
)
