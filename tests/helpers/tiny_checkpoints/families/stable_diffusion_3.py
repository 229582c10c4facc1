"""Stable Diffusion 3 and 3.5 medium: two streams, two CLIPs and T5, which some lack."""

from functools import partial
from typing import Any

from diffusers import (
    SchedulerMixin,
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3Pipeline,
)

from .. import encoders
from ..case import INPAINTING, PICTURE, STRENGTH, Case
from ..checkpoint import TinyCheckpoint
from ..schedulers import Config
from ..tokenizers import clip_tokenizer, t5_tokenizer
from ..vaes import image_vae

SCHEDULER: Config = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
}

HEAD_DIM = 16
TEXT_WIDTH = 80  # wider than both CLIPs together, as published


def sd3_pipeline(
    scheduler: SchedulerMixin,
    *,
    heads: int,
    with_t5: bool = True,
    qk_norm: str | None = None,
    dual_attention_layers: tuple[int, ...] = (),
) -> StableDiffusion3Pipeline:
    return StableDiffusion3Pipeline(
        scheduler=scheduler,
        vae=image_vae(
            latent_channels=16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
            mid_block_add_attention=True,
        ),
        text_encoder=encoders.clip_text_with_projection(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=encoders.clip_text_with_projection(),
        tokenizer_2=clip_tokenizer(pad_token="!"),
        text_encoder_3=encoders.t5(TEXT_WIDTH) if with_t5 else None,
        tokenizer_3=t5_tokenizer() if with_t5 else None,
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            num_layers=3,
            attention_head_dim=HEAD_DIM,
            num_attention_heads=heads,
            joint_attention_dim=TEXT_WIDTH,
            caption_projection_dim=heads * HEAD_DIM,
            pooled_projection_dim=2 * encoders.WIDTH,
            out_channels=16,
            pos_embed_max_size=12,
            dual_attention_layers=dual_attention_layers,
            qk_norm=qk_norm,
        ),
    )


SD35: dict[str, Any] = {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)}
"""What 3.5 medium has more."""


CHECKPOINTS = {
    "sd3": TinyCheckpoint(sd3_pipeline, SCHEDULER),
    "sd35": TinyCheckpoint(partial(sd3_pipeline, **SD35), SCHEDULER),
}
VARIANTS = {"sd3-without-t5": TinyCheckpoint(partial(sd3_pipeline, with_t5=False), SCHEDULER)}
CASES = {
    ("stable_diffusion_3", "text-to-image"): Case("sd3"),
    ("stable_diffusion_3", "image-to-image"): Case(
        "sd35", StableDiffusion3Img2ImgPipeline, PICTURE | STRENGTH
    ),
    ("stable_diffusion_3", "inpainting"): Case(
        "sd35", StableDiffusion3InpaintPipeline, INPAINTING | STRENGTH
    ),
}
