"""Wan 2.1 text-to-video: VAE of 4x in time and 8x in space, 16 latent channels."""

from diffusers import AutoencoderKLWan, SchedulerMixin, WanPipeline, WanTransformer3DModel

from . import encoders
from .tokenizers import t5_tokenizer

HEAD_DIM = 12


def wan_pipeline(scheduler: SchedulerMixin, *, heads: int) -> WanPipeline:
    transformer = WanTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=HEAD_DIM,
        text_dim=encoders.WIDTH,
        freq_dim=32,
        ffn_dim=64,
        num_layers=2,
        rope_max_seq_len=128,
    )
    return WanPipeline(
        scheduler=scheduler,
        vae=AutoencoderKLWan(base_dim=4, num_res_blocks=1),
        text_encoder=encoders.umt5(),
        tokenizer=t5_tokenizer(),
        transformer=transformer,
    )
