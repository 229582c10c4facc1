"""HunyuanVideo 1.5: a VAE of 4x in time and 16x in space, and three encoders."""

from functools import partial
from typing import Any

import diffusers
from diffusers import SchedulerMixin
from transformers import (
    ByT5Tokenizer,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
)

from ..case import Case
from ..checkpoint import TinyCheckpoint
from ..encoders import WIDTH
from ..pictures import picture
from ..schedulers import Config
from .qwen_image import qwen2_5_vl, qwen2_tokenizer

SCHEDULER: Config = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 5.0,
}
SIDE = 8
"""Pixels of what the image encoder sees."""


def chat_tokenizer() -> Any:
    tokenizer = qwen2_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>"
        "{% endfor %}<|im_start|>assistant"
    )
    return tokenizer


def byt5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=400, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    )


def siglip() -> SiglipVisionModel:
    return SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=SIDE,
            patch_size=4,
        )
    )


def hunyuan_video_15_pipeline(scheduler: SchedulerMixin, *, heads: int, shown: bool = False) -> Any:
    parts: dict[str, Any] = {
        "scheduler": scheduler,
        "vae": diffusers.AutoencoderKLHunyuanVideo15(
            latent_channels=8, block_out_channels=(16, 16, 32, 32, 32), layers_per_block=1
        ),
        "text_encoder": qwen2_5_vl().model.language_model,
        "tokenizer": chat_tokenizer(),
        "text_encoder_2": byt5(),
        "tokenizer_2": ByT5Tokenizer(extra_ids=16),
        "guider": diffusers.ClassifierFreeGuidance(guidance_scale=4.0),
        "transformer": diffusers.HunyuanVideo15Transformer3DModel(
            in_channels=17,
            out_channels=8,
            num_attention_heads=heads,
            attention_head_dim=12,
            num_layers=1,
            num_refiner_layers=1,
            text_embed_dim=WIDTH,
            text_embed_2_dim=WIDTH,
            image_embed_dim=WIDTH,
            rope_axes_dim=(4, 4, 4),
            target_size=64,
        ),
    }
    if not shown:
        return diffusers.HunyuanVideo15Pipeline(**parts)
    return diffusers.HunyuanVideo15ImageToVideoPipeline(
        **parts,
        image_encoder=siglip(),
        feature_extractor=SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}),
    )


_SHORT = {"num_frames": 5, "prompt": 'a red heart with "love" on the sea', "guidance_scale": None}
VARIANTS = {
    "hunyuan-video-1.5": TinyCheckpoint(hunyuan_video_15_pipeline, SCHEDULER),
    "hunyuan-video-1.5-i2v": TinyCheckpoint(
        partial(hunyuan_video_15_pipeline, shown=True), SCHEDULER
    ),
}
CASES = {
    ("hunyuan_video_15", "text-to-video"): Case("hunyuan-video-1.5", changes=_SHORT),
    ("hunyuan_video_15", "image-to-video"): Case(
        "hunyuan-video-1.5-i2v",
        changes={**_SHORT, "image": picture(90, 70), "width": 64, "height": 64},
    ),
}
