"""Names of text and image encoders in other layouts than transformers'."""

from __future__ import annotations

import re

from torch import Tensor

LANGUAGE_MODELS = (
    "Gemma2Model",
    "LlamaModel",
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen2_5_VLModel",
    "Qwen3ForCausalLM",
    "Qwen3Model",
)
_T5_LAYERS = {
    "norm1": "layer.0.layer_norm",
    "attn": "layer.0.SelfAttention",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}
"""Names in Wan-Video/Wan2.1."""
_T5_LAYER = re.compile(rf"blocks\.(\d+)\.({'|'.join(map(re.escape, _T5_LAYERS))})\.")
_T5_OUTSIDE = {
    "token_embedding.weight": "shared.weight",
    "norm.weight": "encoder.final_layer_norm.weight",
}
_NESTED = re.compile(r"language_model\.(?:model|lm_head)\.")
_ALONE = re.compile(r"^(?:model\.)?(?=(?:layers|embed_tokens|norm)\.)")
_BARE = re.compile(r"(?:layers|embed_tokens|norm)\.")


def t5_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert T5's and UMT5's names; the decoder, which models with it have too, is left out."""
    converted = {_t5_name(name): tensor for name, tensor in tensors.items()}
    copied = converted.pop("encoder.embed_tokens.weight", None)
    if copied is not None:
        converted.setdefault("shared.weight", copied)
    return {name: t for name, t in converted.items() if name.startswith(("encoder.", "shared."))}


def _t5_name(name: str) -> str:
    if match := _T5_LAYER.match(name):
        return f"encoder.block.{match[1]}.{_T5_LAYERS[match[2]]}.{name[match.end() :]}"
    return _T5_OUTSIDE.get(name, name)


def language_model_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert names of models within others, such as LLaVA; what is not the model is left out."""
    converted = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("language_model.") if _NESTED.match(name) else name
        name = f"model.{name}" if _BARE.match(name) else name
        if name.startswith(("model.", "visual.", "lm_head.")):
            converted[name] = tensor
    return converted


def mistral3_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert names of a Mistral 3's language model alone; those of the whole stay."""
    return {_ALONE.sub("model.language_model.", name): t for name, t in tensors.items()}


def qwen3_vl_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert names of a Qwen3-VL whose parts are not inside a model, as in ComfyUI's files."""
    whole = mistral3_names(tensors)
    return {re.sub(r"^(?=visual\.)", "model.", name): tensor for name, tensor in whole.items()}


def qwen3_vl_model_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same for the class without the layer that predicts words."""
    names = {name: re.sub(r"^(?=language_model\.)", "model.", name) for name in tensors}
    whole = qwen3_vl_names({names[name]: tensor for name, tensor in tensors.items()})
    inside = "model."
    return {n.removeprefix(inside): t for n, t in whole.items() if n.startswith(inside)}
