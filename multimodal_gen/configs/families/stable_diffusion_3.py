"""Stable Diffusion 3 medium, 3.5 medium and 3.5 large: flow matching on two streams."""

import msgspec

from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.messages.model_info import Defaults, Limits

STABLE_DIFFUSION_3 = FamilyConfig(
    name="stable_diffusion_3",
    title="Stable Diffusion 3",
    pipeline_classes=(
        "StableDiffusion3Pipeline",
        "StableDiffusion3Img2ImgPipeline",
        "StableDiffusion3InpaintPipeline",
    ),
    tasks=("text-to-image", "image-to-image", "inpainting"),
    parameters=("max_sequence_length",),
    size_multiple=16,
    defaults=Defaults(
        width=1024,
        height=1024,
        num_inference_steps=28,
        guidance_scale=7.0,
        max_sequence_length=256,
        strength=0.6,
        inpainting_strength=0.6,
    ),
    limits=Limits(max_pixels=2048 * 2048, max_sequence_length=512),
    schedulers=("flow_euler", "flow_heun", "unipc"),
    denoiser="native",
    ulysses=True,
)

MEDIUM_3_5_DEFAULTS = msgspec.structs.replace(
    STABLE_DIFFUSION_3.defaults, num_inference_steps=40, guidance_scale=4.5
)
"""As 3.5 medium is published: with image tokens that also attend to themselves."""

LARGE_3_5_DEFAULTS = msgspec.structs.replace(STABLE_DIFFUSION_3.defaults, guidance_scale=3.5)
"""As 3.5 large is: without that, but with normalised queries and keys."""
