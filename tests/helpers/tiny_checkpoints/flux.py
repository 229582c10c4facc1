"""FLUX.1: double and single stream blocks, 16 latent channels, no quant convolutions."""

from typing import Any

from diffusers import FluxPipeline, FluxTransformer2DModel, SchedulerMixin

from . import encoders
from .tokenizers import clip_tokenizer, t5_tokenizer
from .vaes import flux_vae

HEAD_DIM = 16


def flux_pipeline(
    scheduler: SchedulerMixin,
    *,
    heads: int,
    guidance_embeds: bool,
    kind: Any = FluxPipeline,
    in_channels: int = 64,
) -> Any:
    """A pipeline of the class `kind`, which has the components of FluxPipeline."""
    return kind(
        scheduler=scheduler,
        vae=flux_vae(),
        text_encoder=encoders.clip_text(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=encoders.t5(),
        tokenizer_2=t5_tokenizer(),
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=in_channels,
            out_channels=64,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=HEAD_DIM,
            num_attention_heads=heads,
            joint_attention_dim=encoders.WIDTH,
            pooled_projection_dim=encoders.WIDTH,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 6, 6),
        ),
    )
