"""Narrow language models that encode prompts."""

from transformers import (
    Gemma2Config,
    Gemma2Model,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaModel,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    SiglipVisionConfig,
)

from .encoders import WIDTH
from .llm_tokenizers import gemma_tokenizer, llama_tokenizer, mistral_tokenizer

GEMMA3_LAYERS = 2


def llama() -> LlamaModel:
    """Four layers: HunyuanVideo takes the states before the last two."""
    return LlamaModel(
        LlamaConfig(
            vocab_size=len(llama_tokenizer()),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            pad_token_id=llama_tokenizer().pad_token_id,
        )
    )


def mistral3(layers: int, width: int) -> Mistral3ForConditionalGeneration:
    """With a small image encoder, as in Mistral 3."""
    narrow = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": 4}
    return Mistral3ForConditionalGeneration(
        Mistral3Config(
            text_config={
                **narrow,
                "model_type": "mistral",
                "vocab_size": len(mistral_tokenizer()),
                "num_hidden_layers": layers,
                "num_key_value_heads": 2,
                "head_dim": 8,
                "max_position_embeddings": 1024,
            },
            vision_config={
                **narrow,
                "model_type": "pixtral",
                "num_hidden_layers": 1,
                "image_size": 16,
                "patch_size": 8,
            },
            image_token_index=mistral_tokenizer().convert_tokens_to_ids("[IMG]"),
        )
    )


def gemma2() -> Gemma2Model:
    """Two layers, one of them with a sliding window, as in Gemma 2."""
    return Gemma2Model(
        Gemma2Config(
            vocab_size=len(gemma_tokenizer()),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=64,
        )
    )


def gemma3() -> Gemma3ForConditionalGeneration:
    """Two layers, one of them with a sliding window, beside a model of pictures."""
    text = Gemma3TextConfig(
        vocab_size=len(gemma_tokenizer()),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=GEMMA3_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
    )
    vision = SiglipVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    return Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    )
