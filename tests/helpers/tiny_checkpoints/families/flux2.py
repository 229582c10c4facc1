"""FLUX.2 klein: double and single stream blocks, a VAE with batch statistics, Qwen3."""

from functools import partial

from diffusers import (
    AutoencoderKLFlux2,
    Flux2KleinInpaintPipeline,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    SchedulerMixin,
)

from ..case import INPAINTING, PICTURES, STRENGTH, Case
from ..checkpoint import TinyCheckpoint
from ..qwen3 import qwen3, qwen3_tokenizer
from ..schedulers import FLUX_DEV

HEAD_DIM = 16
LATENT_CHANNELS = 4
WIDTH = 16
"""Of the text encoder."""
_TAKEN = 3  # of its states


def flux2_klein_pipeline(
    scheduler: SchedulerMixin, *, heads: int, is_distilled: bool
) -> Flux2KleinPipeline:
    return Flux2KleinPipeline(
        scheduler=scheduler,
        vae=flux2_vae(),
        text_encoder=qwen3(layers=28, width=WIDTH),
        tokenizer=qwen3_tokenizer(),
        transformer=flux2_transformer(heads, guidance_embeds=False),
        is_distilled=is_distilled,
    )


def flux2_vae() -> AutoencoderKLFlux2:
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=LATENT_CHANNELS,
        sample_size=64,
    )
    channels = 4 * LATENT_CHANNELS
    vae.bn.running_mean.copy_(vae.bn.running_mean.new_tensor(range(channels)) / channels - 0.5)
    vae.bn.running_var.copy_(vae.bn.running_var.new_tensor(range(1, channels + 1)) / channels)
    return vae


def flux2_transformer(heads: int, *, guidance_embeds: bool) -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=HEAD_DIM,
        num_attention_heads=heads,
        joint_attention_dim=_TAKEN * WIDTH,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )


CHECKPOINTS = {
    "flux2-klein": TinyCheckpoint(
        partial(flux2_klein_pipeline, is_distilled=True), FLUX_DEV, ("prompt", "seed", "steps")
    ),
    "flux2-klein-base": TinyCheckpoint(
        partial(flux2_klein_pipeline, is_distilled=False),
        FLUX_DEV,
        ("prompt", "seed", "steps", "guidance"),
    ),
}
CASES = {
    ("flux2", "image-edit"): Case("flux2-klein-base", None, PICTURES),
    ("flux2", "text-to-image"): Case("flux2-klein-base"),
    ("flux2", "inpainting"): Case(
        "flux2-klein",
        Flux2KleinInpaintPipeline,
        INPAINTING | STRENGTH | {"width": None, "height": None},
    ),
}
