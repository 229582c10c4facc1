"""Stable Diffusion XL: a larger UNet that is also told the pooled text and the picture's size."""

from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.configs.families.stable_diffusion import NOISE_SCHEDULERS
from multimodal_gen.messages.model_info import Defaults, Limits

STABLE_DIFFUSION_XL = FamilyConfig(
    name="stable_diffusion_xl",
    title="Stable Diffusion XL",
    pipeline_classes=("StableDiffusionXLPipeline",),
    tasks=("text-to-image",),
    parameters=(),
    size_multiple=8,
    defaults=Defaults(width=1024, height=1024, num_inference_steps=50, guidance_scale=5.0),
    limits=Limits(max_pixels=2048 * 2048),
    schedulers=NOISE_SCHEDULERS,
)
