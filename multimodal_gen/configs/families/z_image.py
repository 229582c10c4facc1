"""Z-Image and Z-Image-Turbo, which is distilled to eight steps without guidance."""

import msgspec

from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.messages.model_info import Defaults, Limits

Z_IMAGE = FamilyConfig(
    name="z_image",
    title="Z-Image",
    pipeline_classes=("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline"),
    tasks=("text-to-image", "image-to-image", "inpainting"),
    parameters=("max_sequence_length", "flow_shift"),
    size_multiple=16,
    picture_size="own",
    defaults=Defaults(
        width=1024,
        height=1024,
        num_inference_steps=8,
        guidance_scale=0.0,
        max_sequence_length=512,
        strength=0.6,
        inpainting_strength=1.0,
    ),
    limits=Limits(max_pixels=2048 * 2048, max_sequence_length=1024),
    schedulers=("flow_euler", "flow_heun", "unipc"),
    denoiser="native",
    ulysses=True,
)

BASE_DEFAULTS = msgspec.structs.replace(
    Z_IMAGE.defaults, num_inference_steps=50, guidance_scale=5.0
)
"""For checkpoints that are not distilled."""
