"""Maps the parameters of `Krea2Transformer` to tensors of a diffusers checkpoint."""

from __future__ import annotations

from multimodal_gen.runtime.models.dits.keys import Modules, parameters
from multimodal_gen.runtime.models.dits.krea2.config import Krea2Config

_LAYERS = {
    "x_embedder": "img_in",
    "time_embedder.linear_1": "time_embed.linear_1",
    "time_embedder.linear_2": "time_embed.linear_2",
    "time_proj": "time_mod_proj",
    "text_embedder.linear_1": "txt_in.linear_1",
    "text_embedder.linear_2": "txt_in.linear_2",
    "proj_out": "final_layer.linear",
}
_WITHOUT_BIAS = {
    "text_layers": "text_fusion.projector",
    "text_norm": "txt_in.norm",
    "norm_out": "final_layer.norm",
}


def krea2_key_map(config: Krea2Config) -> dict[str, tuple[str, ...]]:
    """Map our parameters' names to diffusers' names; several are concatenated along dim 0.

    It contains every parameter, and every tensor of a checkpoint of this config, exactly once.
    """
    modules: Modules = {ours: (theirs,) for ours, theirs in _WITHOUT_BIAS.items()}
    for i in range(config.num_layerwise_text_blocks):
        modules |= _block(f"layerwise.{i}", f"text_fusion.layerwise_blocks.{i}")
    for i in range(config.num_refiner_text_blocks):
        modules |= _block(f"refiners.{i}", f"text_fusion.refiner_blocks.{i}")
    tables = {"out_modulation.weight": ("final_layer.scale_shift_table",)}
    for i in range(config.num_layers):
        modules |= _block(f"blocks.{i}", f"transformer_blocks.{i}")
        tables[f"blocks.{i}.modulation.weight"] = (f"transformer_blocks.{i}.scale_shift_table",)
    return parameters({ours: (theirs,) for ours, theirs in _LAYERS.items()}, modules) | tables


def _block(ours: str, theirs: str) -> Modules:
    attention = f"{theirs}.attn"
    return {
        f"{ours}.norm1": (f"{theirs}.norm1",),
        f"{ours}.qkv_gate": tuple(f"{attention}.to_{name}" for name in ("q", "k", "v", "gate")),
        f"{ours}.qk_norm": (f"{attention}.norm_q", f"{attention}.norm_k"),
        f"{ours}.attention_out": (f"{attention}.to_out.0",),
        f"{ours}.norm2": (f"{theirs}.norm2",),
        f"{ours}.mlp_in": (f"{theirs}.ff.gate", f"{theirs}.ff.up"),
        f"{ours}.mlp_out": (f"{theirs}.ff.down",),
    }
