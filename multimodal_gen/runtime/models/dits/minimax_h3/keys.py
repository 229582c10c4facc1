"""Maps the parameters of `MiniMaxH3Transformer` to tensors of a diffusers checkpoint."""

from __future__ import annotations

from multimodal_gen.runtime.models.dits.keys import Modules, each, parameters
from multimodal_gen.runtime.models.dits.minimax_h3.config import MiniMaxH3Config

_OUTSIDE = {
    "x_embedder": "proj_in",
    "audio_embedder": "audio_proj_in",
    "text_embedder": "context_embedder",
    "time_embedder.linear_1": "time_embedder.linear_1",
    "time_embedder.linear_2": "time_embedder.linear_2",
    "out_modulation": "norm_out.linear",
    "proj_out": "proj_out",
    "audio_out": "audio_proj_out",
}


def minimax_h3_key_map(config: MiniMaxH3Config) -> dict[str, tuple[str, ...]]:
    """Map our parameters' names to diffusers' names; several are concatenated along dim 0, in
    order.

    It contains every parameter, and every tensor of a checkpoint of this config, exactly once.
    """
    layers: Modules = {ours: (theirs,) for ours, theirs in _OUTSIDE.items()}
    weights: Modules = {"norm_out": ("norm_out.norm",), "text_norm": ("token_refiner.final_norm",)}
    for i in range(config.num_refiner_layers):
        weights |= _block(f"refiners.{i}", f"token_refiner.refiner_blocks.{i}")
    for i in range(config.num_layers):
        weights |= _block(f"blocks.{i}", f"transformer_blocks.{i}")
        layers[f"blocks.{i}.modulation"] = (f"transformer_blocks.{i}.adaln_proj.linear",)
    return parameters(layers, weights)


def _block(ours: str, theirs: str) -> Modules:
    return {
        f"{ours}.norm1": (f"{theirs}.norm1",),
        f"{ours}.qkv": each(f"{theirs}.attn.to_{{}}", "qkv"),
        f"{ours}.qk_norm": each(f"{theirs}.attn.norm_{{}}", "qk"),
        f"{ours}.attention_out": (f"{theirs}.attn.to_out.0",),
        f"{ours}.norm2": (f"{theirs}.norm2",),
        f"{ours}.mlp_in": (f"{theirs}.ff.net.0.proj",),
        f"{ours}.mlp_out": (f"{theirs}.ff.net.2",),
    }
