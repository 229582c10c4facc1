"""Narrow text encoders of the real classes."""

from typing import Any

from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModel,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from .tokenizers import clip_tokenizer, t5_tokenizer

WIDTH = 32
CLIP_TOKENS = 5
"""Of a picture, in the image encoder."""


def clip_text() -> CLIPTextModel:
    return CLIPTextModel(_clip_config("quick_gelu"))


def clip_text_with_projection() -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(_clip_config("gelu"))


def clip_vision() -> CLIPVisionModel:
    """For pictures of 8 x 8."""
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=8,
            patch_size=4,
        )
    )


def clip_image_processor() -> CLIPImageProcessor:
    side = {"height": 8, "width": 8}
    return CLIPImageProcessor(size={"shortest_edge": 8}, crop_size=side)


def t5(width: int = WIDTH) -> T5EncoderModel:
    return T5EncoderModel(T5Config(**_t5_sizes() | {"d_model": width}))


def umt5() -> UMT5EncoderModel:
    return UMT5EncoderModel(UMT5Config(**_t5_sizes()))


def _clip_config(activation: str) -> CLIPTextConfig:
    tokenizer = clip_tokenizer()
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=WIDTH,
        hidden_act=activation,
        max_position_embeddings=77,
        # As in the published configs: 2 makes CLIP pool at the highest id, which is EOS.
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )


def _t5_sizes() -> dict[str, Any]:
    return {
        "vocab_size": len(t5_tokenizer()),
        "d_model": WIDTH,
        "d_kv": 8,
        "d_ff": 2 * WIDTH,
        "num_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
    }
