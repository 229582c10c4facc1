"""Maps the parameters of `ZImageTransformer` to tensors of a diffusers checkpoint."""

from __future__ import annotations

from multimodal_gen.runtime.models.dits.keys import Modules, each, parameters
from multimodal_gen.runtime.models.dits.z_image.config import ZImageConfig

_PATCHES = "2-1"  # of 2 x 2 latents in 1 frame
_LAYERS = {
    "x_embedder": f"all_x_embedder.{_PATCHES}",
    "text_embedder": "cap_embedder.1",
    "time_embedder.linear_1": "t_embedder.mlp.0",
    "time_embedder.linear_2": "t_embedder.mlp.2",
    "out_modulation": f"all_final_layer.{_PATCHES}.adaLN_modulation.1",
    "proj_out": f"all_final_layer.{_PATCHES}.linear",
}
_PARAMETERS = {
    "text_norm.weight": "cap_embedder.0.weight",
    "x_pad_token": "x_pad_token",
    "text_pad_token": "cap_pad_token",
}


def z_image_key_map(config: ZImageConfig) -> dict[str, tuple[str, ...]]:
    """Map our parameters' names to diffusers' names; several are concatenated along dim 0, in
    order.

    It contains every parameter, and every tensor of a checkpoint of this config, exactly once.
    """
    refiner, deep = range(config.n_refiner_layers), range(config.n_layers)
    blocks = {
        **{f"blocks.{i}": f"noise_refiner.{i}" for i in refiner},
        **{f"text_refiners.{i}": f"context_refiner.{i}" for i in refiner},
        **{f"blocks.{len(refiner) + i}": f"layers.{i}" for i in deep},
    }
    layers: Modules = {ours: (theirs,) for ours, theirs in _LAYERS.items()}
    for ours, theirs in blocks.items():
        if not theirs.startswith("context"):
            layers[f"{ours}.modulation"] = (f"{theirs}.adaLN_modulation.0",)
    keys = parameters(layers, {}) | {ours: (theirs,) for ours, theirs in _PARAMETERS.items()}
    for ours, theirs in blocks.items():
        keys |= block_key_map(ours, theirs, qk_norm=config.qk_norm)
    return keys


def block_key_map(ours: str, theirs: str, *, qk_norm: bool) -> Modules:
    """Map the parameters of a `ZImageBlock` but its modulation."""
    attention, mlp = f"{theirs}.attention", f"{theirs}.feed_forward"
    keys: Modules = {
        "qkv.weight": each(f"{attention}.to_{{}}.weight", "qkv"),
        "attention_out.weight": (f"{attention}.to_out.0.weight",),
        "mlp_in.weight": (f"{mlp}.w1.weight", f"{mlp}.w3.weight"),
        "mlp_out.weight": (f"{mlp}.w2.weight",),
        "attention_norm_in.weight": (f"{theirs}.attention_norm1.weight",),
        "attention_norm_out.weight": (f"{theirs}.attention_norm2.weight",),
        "mlp_norm_in.weight": (f"{theirs}.ffn_norm1.weight",),
        "mlp_norm_out.weight": (f"{theirs}.ffn_norm2.weight",),
    }
    if qk_norm:
        keys["qk_norm.weight"] = each(f"{attention}.norm_{{}}.weight", "qk")
    return {f"{ours}.{name}": names for name, names in keys.items()}
