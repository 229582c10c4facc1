"""Wan 2.1 and 2.2: VAE of 4x in time and 8x in space (2.2's TI2V: 16x), one expert or two."""

from functools import partial
from typing import Any

from diffusers import (
    AutoencoderKLWan,
    SchedulerMixin,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
    WanVideoToVideoPipeline,
)

from .. import encoders
from ..case import PICTURE, STRENGTH, VIDEO, Case
from ..checkpoint import TinyCheckpoint
from ..pictures import clip, gradient
from ..schedulers import Config
from ..tokenizers import t5_tokenizer

SCHEDULER: Config = {
    "_class_name": "UniPCMultistepScheduler",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "final_sigmas_type": "zero",
    "flow_shift": 3.0,
    "lower_order_final": True,
    "num_train_timesteps": 1000,
    "predict_x0": True,
    "prediction_type": "flow_prediction",
    "solver_order": 2,
    "solver_type": "bh2",
    "timestep_spacing": "linspace",
    "use_flow_sigmas": True,
}

HEAD_DIM = 12
Z_DIM = 8  # of TI2V


def wan_pipeline(scheduler: SchedulerMixin, *, heads: int, **options: Any) -> WanPipeline:
    return WanPipeline(
        **components(scheduler, heads, experts="boundary_ratio" in options), **options
    )


def wan_i2v_pipeline(
    scheduler: SchedulerMixin,
    *,
    heads: int,
    clip: bool = False,
    last: bool = False,
    **options: Any,
) -> WanImageToVideoPipeline:
    """`clip`: with 2.1's tokens of the picture; `last`: and with those of another one."""
    width = encoders.WIDTH
    sees = {"image_dim": width, "added_kv_proj_dim": heads * HEAD_DIM} if clip else {}
    if last:
        sees["pos_embed_seq_len"] = 2 * encoders.CLIP_TOKENS
    shown = (
        {
            "image_encoder": encoders.clip_vision(),
            "image_processor": encoders.clip_image_processor(),
        }
        if clip
        else {}
    )
    experts = "boundary_ratio" in options
    parts = components(scheduler, heads, experts=experts, in_channels=36, out_channels=16, **sees)
    return WanImageToVideoPipeline(**parts, **shown, **options)


def wan_ti2v_pipeline(scheduler: SchedulerMixin, *, heads: int) -> WanPipeline:
    parts = components(scheduler, heads, in_channels=Z_DIM, out_channels=Z_DIM)
    parts["vae"] = AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=8,
        z_dim=Z_DIM,
        num_res_blocks=1,
        latents_mean=[0.1 * (channel - 3) for channel in range(Z_DIM)],
        latents_std=[0.5 + 0.1 * channel for channel in range(Z_DIM)],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )
    return WanPipeline(**parts, expand_timesteps=True)


def components(
    scheduler: SchedulerMixin, heads: int, experts: bool = False, **config: Any
) -> dict[str, Any]:
    return {
        "scheduler": scheduler,
        "vae": AutoencoderKLWan(base_dim=4, num_res_blocks=1),
        "text_encoder": encoders.umt5(),
        "tokenizer": t5_tokenizer(),
        "transformer": _transformer(heads, **config),
        "transformer_2": _transformer(heads, **config) if experts else None,
    }


def _transformer(heads: int, **config: Any) -> WanTransformer3DModel:
    return WanTransformer3DModel(**sizes(heads), **config)


def sizes(heads: int) -> dict[str, Any]:
    """Of a transformer."""
    return {
        "num_attention_heads": heads,
        "attention_head_dim": HEAD_DIM,
        "text_dim": encoders.WIDTH,
        "freq_dim": 32,
        "ffn_dim": 64,
        "num_layers": 2,
        "rope_max_seq_len": 128,
    }


_TEXT_TO_VIDEO: dict[str, Any] = {"num_frames": 5}
_IMAGE_TO_VIDEO = {**_TEXT_TO_VIDEO, "image": gradient()}
CHECKPOINTS = {
    "wan": TinyCheckpoint(wan_pipeline, SCHEDULER, call=_TEXT_TO_VIDEO),
    "wan-i2v": TinyCheckpoint(
        partial(wan_i2v_pipeline, clip=True), SCHEDULER, call=_IMAGE_TO_VIDEO
    ),
    "wan22": TinyCheckpoint(
        partial(wan_pipeline, boundary_ratio=0.875), SCHEDULER, call=_TEXT_TO_VIDEO
    ),
    "wan22-i2v": TinyCheckpoint(
        partial(wan_i2v_pipeline, boundary_ratio=0.9), SCHEDULER, call=_IMAGE_TO_VIDEO
    ),
    "wan22-ti2v": TinyCheckpoint(wan_ti2v_pipeline, SCHEDULER, call=_TEXT_TO_VIDEO),
}
VARIANTS = {
    "wan-flf": TinyCheckpoint(partial(wan_i2v_pipeline, clip=True, last=True), SCHEDULER),
}
CASES = {
    ("wan", "text-to-video"): Case(
        "wan22",
        changes=VIDEO | {"negative_prompt": "", "guidance_scale_2": 3.0},
    ),
    ("wan", "video-to-video"): Case(
        "wan",
        WanVideoToVideoPipeline,
        STRENGTH
        | {"video": clip(9, 80, 70), "max_sequence_length": 32, "negative_prompt": "blurry"},
    ),
    ("wan_image_to_video", "image-to-video"): Case(
        "wan-i2v", changes=VIDEO | PICTURE | {"negative_prompt": ""}
    ),
}
