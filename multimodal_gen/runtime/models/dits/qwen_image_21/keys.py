"""Maps the parameters of `QwenImage21Transformer` to tensors of a diffusers checkpoint."""

from __future__ import annotations

from multimodal_gen.runtime.models.dits.keys import Modules, each
from multimodal_gen.runtime.models.dits.qwen_image_21.config import QwenImage21Config

_OUTSIDE = {
    "x_embedder": "img_in",
    "text_norm": "txt_in.text_norm",
    "text_embedder.linear_1": "txt_in.in_layer",
    "text_embedder.linear_2": "txt_in.out_layer",
    "time_embedder.linear_1": "time_text_embed.timestep_embedder.linear_1",
    "time_embedder.linear_2": "time_text_embed.timestep_embedder.linear_2",
    "modulation": "modulation.1",
    "out_modulation": "norm_out.linear",
    "proj_out": "proj_out",
}


def qwen_image_21_key_map(config: QwenImage21Config) -> dict[str, tuple[str, ...]]:
    """Map our parameters' names to diffusers' names; several are concatenated along dim 0, in
    order.

    It contains every parameter, and every tensor of a checkpoint of this config, exactly once.
    """
    modules: Modules = {ours: (theirs,) for ours, theirs in _OUTSIDE.items()}
    for i in range(config.num_layers):
        ours, theirs = f"blocks.{i}", f"transformer_blocks.{i}"
        modules[f"{ours}.qkv"] = each(f"{theirs}.attn.to_{{}}", "qkv")
        modules[f"{ours}.qk_norm"] = each(f"{theirs}.attn.norm_{{}}", "qk")
        modules[f"{ours}.attention_out"] = (f"{theirs}.attn.to_out.0",)
        modules[f"{ours}.mlp_in"] = (f"{theirs}.img_mlp.gate_layer", f"{theirs}.img_mlp.proj")
        modules[f"{ours}.mlp_out"] = (f"{theirs}.img_mlp.out",)
    return {
        f"{ours}.weight": tuple(f"{name}.weight" for name in names)
        for ours, names in modules.items()
    }
