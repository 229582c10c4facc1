"""Stable Diffusion 1 and 2: a UNet that predicts noise (or v) in the latents of an 8x VAE."""

from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.messages.model_info import Defaults, Limits

NOISE_SCHEDULERS = (
    "ddpm",
    "ddim",
    "pndm",
    "euler",
    "euler_a",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "edm_euler",
    "unipc",
)
"""Solvers for models that predict noise."""

STABLE_DIFFUSION = FamilyConfig(
    name="stable_diffusion",
    title="Stable Diffusion 1.5",
    pipeline_classes=("StableDiffusionPipeline",),
    tasks=("text-to-image",),
    parameters=(),
    size_multiple=8,
    defaults=Defaults(width=512, height=512, num_inference_steps=50, guidance_scale=7.5),
    limits=Limits(max_pixels=2048 * 2048),
    schedulers=NOISE_SCHEDULERS,
)
