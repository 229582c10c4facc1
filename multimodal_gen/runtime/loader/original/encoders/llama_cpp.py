"""Names of text encoders in llama.cpp's GGUF files, and what its converter changes in numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.tensors.derived import Offset, reordered
from multimodal_gen.runtime.loader.tensors.stored import Stored

_OUTSIDE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYERS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_LAYERS = {
    **_LAYERS,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_T5_OUTSIDE = {"token_embd": "shared", "enc.output_norm": "encoder.final_layer_norm"}
_T5_LAYERS = {
    "attn_norm": "layer.0.layer_norm",
    "attn_q": "layer.0.SelfAttention.q",
    "attn_k": "layer.0.SelfAttention.k",
    "attn_v": "layer.0.SelfAttention.v",
    "attn_o": "layer.0.SelfAttention.o",
    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "ffn_norm": "layer.1.layer_norm",
    "ffn_gate": "layer.1.DenseReluDense.wi_0",
    "ffn_up": "layer.1.DenseReluDense.wi_1",
    "ffn_down": "layer.1.DenseReluDense.wo",
}
_LAYER = re.compile(r"(?:enc\.)?blk\.(\d+)\.(\w+)$")
_IGNORED = ("rope_freqs", "dec.")
_INTERLEAVED = ("Llama", "Mistral", "Ministral")
"""Classes whose queries and keys llama.cpp turns in pairs of neighbours; transformers turns the two
halves of a head."""

_NESTED = ("Mistral3", "Gemma3ForConditionalGeneration")
"""Classes in whose checkpoints the language model is a part."""


def is_llama_cpp(stored: Mapping[str, Stored]) -> bool:
    """True if tensors have llama.cpp's names."""
    return any(_LAYER.match(name.rpartition(".")[0]) for name in stored)


def transformers_tensors(
    stored: Mapping[str, Stored], class_name: str, config: Mapping[str, Any], what: str
) -> dict[str, Stored]:
    """Tensors of a text encoder, with the names and numbers of its class in transformers.

    Raises InvalidCheckpoint for a name that is not known; `what` is the file's name in errors.
    """
    nested = config.get("text_config")
    text = nested if isinstance(nested, dict) else config
    renamed = {}
    for name, tensor in stored.items():
        module, _, kind = name.rpartition(".")
        if module.startswith(_IGNORED):
            continue
        theirs = _name(module, class_name)
        if theirs is None:
            raise InvalidCheckpoint(f"{what}: unexpected: {name}")
        if class_name.startswith("Gemma") and module.endswith("norm"):
            tensor = Offset(tensor, -1.0)  # Its class adds 1 to the weight; the file has the sum.
        if class_name.startswith(_INTERLEAVED) and module.endswith((".attn_q", ".attn_k")):
            tensor = reordered(tensor, _halves(name, tensor, text, what))
        owner = "language_model." if class_name.startswith(_NESTED) else ""
        renamed[f"{owner}{theirs}.{kind}"] = tensor
    return renamed


def _name(module: str, class_name: str) -> str | None:
    t5 = "T5" in class_name
    if (layer := _LAYER.match(module)) is None:
        return (_T5_OUTSIDE if t5 else _OUTSIDE).get(module)
    number, part = layer.groups()
    if t5:
        return (theirs := _T5_LAYERS.get(part)) and f"encoder.block.{number}.{theirs}"
    names = _GEMMA_LAYERS if class_name.startswith(("Gemma2", "Gemma3")) else _LAYERS
    return (theirs := names.get(part)) and f"model.layers.{number}.{theirs}"


def _halves(name: str, tensor: Stored, text: Mapping[str, Any], what: str) -> Tensor:
    """Order of rows in which the numbers that are turned together are half a head apart."""
    heads = text.get("num_attention_heads")
    if ".attn_k." in name:
        heads = text.get("num_key_value_heads") or heads
    rows = tensor.shape[0] if tensor.shape else 1
    if not isinstance(heads, int) or heads < 1 or rows % (2 * heads):
        raise InvalidCheckpoint(
            f"{what}: {name} {list(tensor.shape)} does not split into {heads} heads"
        )
    return torch.arange(rows).view(heads, -1, 2).transpose(1, 2).reshape(-1)
