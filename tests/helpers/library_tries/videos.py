"""Pipelines of videos."""

from __future__ import annotations

from functools import partial
from typing import Any

import diffusers
from tiny_checkpoints import encoders
from tiny_checkpoints.families import qwen_image, wan
from tiny_checkpoints.families.hunyuan_video_15 import byt5, chat_tokenizer, siglip
from tiny_checkpoints.tokenizers import clip_tokenizer, t5_tokenizer
from transformers import (
    ByT5Tokenizer,
    CLIPVisionModelWithProjection,
    SiglipImageProcessor,
)

from .images import (
    FLOW,
    W,
    kandinsky5,
    processor,
    qwen2_5_vl_text,
)
from .trial import Trial
from .unets import IMAGE, STRENGTH

FRAMES = {"num_frames": 9}
SHORT = {"num_frames": 5}
VIDEO = {"video": "video"}
_LAST = IMAGE | {"last_image": "last_image"}
_EMBEDS = {"guidance_scale": None}
_WAN_LIKE: dict[str, Any] = {
    "num_attention_heads": 4,
    "attention_head_dim": wan.HEAD_DIM,
    "text_dim": W,
    "freq_dim": 32,
    "ffn_dim": 64,
    "num_layers": 2,
    "rope_max_seq_len": 128,
}


def _skyreels(**config: Any) -> Any:
    return diffusers.SkyReelsV2Transformer3DModel(**{**_WAN_LIKE, **config})


def _wan(transformer: Any, **changes: Any) -> Trial:
    return Trial("wan", {"transformer": transformer}, **changes)


def _siglip_processor() -> SiglipImageProcessor:
    return SiglipImageProcessor(size={"height": 8, "width": 8})


_HUNYUAN15: dict[str, Any] = {
    "vae": lambda: diffusers.AutoencoderKLHunyuanVideo15(
        latent_channels=8,
        block_out_channels=(16, 16, 32, 32, 32),
        layers_per_block=1,
    ),
    "text_encoder": qwen2_5_vl_text,
    "tokenizer": chat_tokenizer,
    "text_encoder_2": byt5,
    "tokenizer_2": lambda: ByT5Tokenizer(extra_ids=16),
    "guider": diffusers.ClassifierFreeGuidance,
}


def _hunyuan15(**config: Any) -> Any:
    return diffusers.HunyuanVideo15Transformer3DModel(
        **{
            "in_channels": 17,
            "out_channels": 8,
            "num_attention_heads": 4,
            "attention_head_dim": 12,
            "num_layers": 1,
            "num_refiner_layers": 1,
            "text_embed_dim": W,
            "text_embed_2_dim": W,
            "image_embed_dim": W,
            "rope_axes_dim": (4, 4, 4),
            "target_size": 64,
            **config,
        }
    )


_KANDINSKY5: dict[str, Any] = {
    "vae": lambda: diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=16, block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4
    ),
    "tokenizer": processor,
    "text_encoder_2": encoders.clip_text,
    "tokenizer_2": clip_tokenizer,
}


def _clip_vision() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(encoders.clip_vision().config)


def _large_clip_vision() -> CLIPVisionModelWithProjection:
    """Of pictures as the pipeline resizes them."""
    config = encoders.clip_vision().config
    config.image_size, config.patch_size, config.projection_dim = 224, 112, W
    return CLIPVisionModelWithProjection(config)


VIDEOS: dict[str, Trial] = {
    "HunyuanVideo15Pipeline": Trial(
        parts=_HUNYUAN15 | {"transformer": _hunyuan15},
        scheduler=FLOW,
        call=SHORT | {"guidance_scale": None},
    ),
    "HunyuanVideo15ImageToVideoPipeline": Trial(
        parts=_HUNYUAN15
        | {
            "transformer": _hunyuan15,
            "image_encoder": siglip,
            "feature_extractor": _siglip_processor,
        },
        scheduler=FLOW,
        pictures=IMAGE,
        call=SHORT | {"guidance_scale": None},
    ),
    "Kandinsky5T2VPipeline": Trial(
        parts=_KANDINSKY5
        | {
            "text_encoder": qwen_image.qwen2_5_vl,
            "transformer": kandinsky5,
        },
        scheduler=FLOW,
        call=SHORT,
    ),
    "Kandinsky5I2VPipeline": Trial(
        parts=_KANDINSKY5
        | {
            "text_encoder": qwen_image.qwen2_5_vl,
            "transformer": partial(kandinsky5, visual_cond=True),
        },
        scheduler=FLOW,
        pictures=IMAGE,
        call={"num_frames": 17},
    ),
    "LattePipeline": Trial("latte", call={"num_frames": 16}, stock_call={"video_length": 16}),
    "WanVideoToVideoPipeline": Trial("wan", pictures=VIDEO, call=STRENGTH),
    "WanVACEPipeline": _wan(
        lambda: diffusers.WanVACETransformer3DModel(
            **_WAN_LIKE, vace_layers=[0, 1], vace_in_channels=96
        ),
        call=FRAMES,
        pictures=VIDEO,
    ),
    "SkyReelsV2Pipeline": _wan(_skyreels, call=FRAMES),
    "SkyReelsV2DiffusionForcingPipeline": _wan(
        partial(_skyreels, inject_sample_info=False),
        call=FRAMES,
        stock_call={"base_num_frames": 97},
    ),
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": _wan(_skyreels, call=FRAMES, pictures=IMAGE),
    "SkyReelsV2ImageToVideoPipeline": Trial(
        "wan-i2v",
        {
            "image_encoder": _clip_vision,
            "transformer": lambda: _skyreels(
                in_channels=36, image_dim=W, added_kv_proj_dim=4 * wan.HEAD_DIM
            ),
        },
        call=FRAMES,
        pictures=IMAGE,
    ),
    "LucyEditPipeline": Trial(
        "wan",
        configs={"transformer": {"in_channels": 32}},
        pictures=VIDEO,
        call=FRAMES,
    ),
    "AnyFlowPipeline": _wan(
        lambda: diffusers.AnyFlowTransformer3DModel(**_WAN_LIKE),
        scheduler={"_class_name": "FlowMapEulerDiscreteScheduler"},
        call=FRAMES,
    ),
    "LTXConditionPipeline": Trial("ltx", scheduler=FLOW, call=FRAMES, pictures=IMAGE),
    "LTXImageToVideoPipeline": Trial("ltx", call=FRAMES, pictures=IMAGE),
    "CogVideoXImageToVideoPipeline": Trial(
        "cogvideox-5b",
        configs={"transformer": {"in_channels": 16}},
        pictures=IMAGE,
        call=FRAMES | {"max_sequence_length": 24},
    ),
    "CogVideoXVideoToVideoPipeline": Trial(
        "cogvideox-5b", pictures=VIDEO, call=STRENGTH | {"max_sequence_length": 24}
    ),
    "CogVideoXFunControlPipeline": Trial(
        "cogvideox",
        configs={"transformer": {"in_channels": 16, "use_rotary_positional_embeddings": True}},
        pictures={"control_video": "video"},
        call={"max_sequence_length": 24},
    ),
    "HunyuanSkyreelsImageToVideoPipeline": Trial(
        "hunyuan-video",
        configs={"transformer": {"in_channels": 16}},
        pictures=IMAGE,
        call=FRAMES,
    ),
    "MochiPipeline": Trial(
        parts={
            "vae": lambda: diffusers.AutoencoderKLMochi(
                encoder_block_out_channels=(32, 32, 32, 32),
                decoder_block_out_channels=(32, 32, 32, 32),
                layers_per_block=(1, 1, 1, 1, 1),
            ),
            "text_encoder": encoders.t5,
            "tokenizer": t5_tokenizer,
            "transformer": lambda: diffusers.MochiTransformer3DModel(
                num_attention_heads=4,
                attention_head_dim=8,
                num_layers=1,
                pooled_projection_dim=16,
                text_embed_dim=W,
                time_embed_dim=16,
            ),
        },
        scheduler=FLOW,
        call={"num_frames": 7},
    ),
    "StableVideoDiffusionPipeline": Trial(
        parts={
            "vae": lambda: diffusers.AutoencoderKLTemporalDecoder(
                block_out_channels=(32, 32, 32, 32),
                down_block_types=("DownEncoderBlock2D",) * 4,
                latent_channels=4,
            ),
            "image_encoder": _large_clip_vision,
            "feature_extractor": encoders.clip_image_processor,
            "unet": lambda: diffusers.UNetSpatioTemporalConditionModel(
                sample_size=8,
                block_out_channels=(32, 64),
                down_block_types=(
                    "CrossAttnDownBlockSpatioTemporal",
                    "DownBlockSpatioTemporal",
                ),
                up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
                layers_per_block=1,
                cross_attention_dim=W,
                num_attention_heads=2,
                addition_time_embed_dim=32,
                projection_class_embeddings_input_dim=96,
            ),
        },
        scheduler={
            "_class_name": "EulerDiscreteScheduler",
            "prediction_type": "v_prediction",
            "timestep_type": "continuous",
            "sigma_min": 0.002,
            "sigma_max": 700.0,
            "use_karras_sigmas": True,
        },
        pictures=IMAGE,
        call={"num_frames": 4, "prompt": "", "guidance_scale": None},
    ),
}
