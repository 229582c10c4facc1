"""Maps the parameters of `QwenImageTransformer` to tensors of a diffusers checkpoint."""

from __future__ import annotations

from multimodal_gen.runtime.models.dits import keys
from multimodal_gen.runtime.models.dits.qwen_image.config import QwenImageConfig

_OUTSIDE = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_embedder.linear_1": "time_text_embed.timestep_embedder.linear_1",
    "time_embedder.linear_2": "time_text_embed.timestep_embedder.linear_2",
    "out_modulation": "norm_out.linear",
    "proj_out": "proj_out",
}
_STREAMS = {
    "image": ("img", ("to_q", "to_k", "to_v"), "to_out.0", ("norm_q", "norm_k")),
    "text": (
        "txt",
        ("add_q_proj", "add_k_proj", "add_v_proj"),
        "to_add_out",
        ("norm_added_q", "norm_added_k"),
    ),
}
"""Prefix, attention projections and norms of each stream in diffusers."""


def qwen_image_key_map(config: QwenImageConfig) -> dict[str, tuple[str, ...]]:
    """Map our parameters' names to diffusers' names; several are concatenated along dim 0, in
    order.

    It contains every parameter, and every tensor of a checkpoint of this config, exactly once.
    """
    layers: keys.Modules = {ours: (theirs,) for ours, theirs in _OUTSIDE.items()}
    norms: keys.Modules = {"context_norm": ("txt_norm",)}
    for i in range(config.num_layers):
        for stream, (prefix, qkv, out, qk_norm) in _STREAMS.items():
            ours, theirs = f"blocks.{i}.{stream}", f"transformer_blocks.{i}"
            layers[f"{ours}_modulation"] = (f"{theirs}.{prefix}_mod.1",)
            layers[f"{ours}.qkv"] = tuple(f"{theirs}.attn.{name}" for name in qkv)
            layers[f"{ours}.attention_out"] = (f"{theirs}.attn.{out}",)
            layers[f"{ours}.mlp_in"] = (f"{theirs}.{prefix}_mlp.net.0.proj",)
            layers[f"{ours}.mlp_out"] = (f"{theirs}.{prefix}_mlp.net.2",)
            norms[f"{ours}.qk_norm"] = tuple(f"{theirs}.attn.{name}" for name in qk_norm)
    return keys.parameters(layers, norms)
