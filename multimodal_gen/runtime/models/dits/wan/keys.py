"""Maps the parameters of `WanTransformer` to tensors of a diffusers checkpoint."""

from __future__ import annotations

from multimodal_gen.runtime.models.dits import keys
from multimodal_gen.runtime.models.dits.wan.config import WanConfig


def wan_key_map(config: WanConfig) -> dict[str, tuple[str, ...]]:
    """Map our parameters' names to diffusers' names; several are concatenated along dim 0, in
    order.

    It contains every parameter, and every tensor of a checkpoint of this config, exactly once.
    """
    blocks = [f"blocks.{i}" for i in range(config.num_layers)]
    layers = _embedders(config)
    norms: keys.Modules = {}
    for block in blocks:
        layers |= _layers(block, config)
        norms |= _norms(block, config)
    names = keys.parameters(layers, norms)
    names |= {f"{block}.modulation.weight": (f"{block}.scale_shift_table",) for block in blocks}
    names["out_modulation.weight"] = ("scale_shift_table",)
    if config.image_dim is not None and config.pos_embed_seq_len is not None:
        names["image_embedder.pos_embed"] = ("condition_embedder.image_embedder.pos_embed",)
    return names


def _embedders(config: WanConfig) -> keys.Modules:
    layers: keys.Modules = {name: (name,) for name in ("patch_embedding", "proj_out")}
    inside = {"time_proj": "time_proj"}
    for name in ("time_embedder", "text_embedder"):
        inside |= {f"{name}.linear_{i}": f"{name}.linear_{i}" for i in (1, 2)}
    if config.image_dim is not None:
        theirs = ("norm1", "ff.net.0.proj", "ff.net.2", "norm2")
        for ours, name in zip(("norm1", "linear_1", "linear_2", "norm2"), theirs, strict=True):
            inside[f"image_embedder.{ours}"] = f"image_embedder.{name}"
    return layers | {ours: (f"condition_embedder.{name}",) for ours, name in inside.items()}


def _layers(block: str, config: WanConfig) -> keys.Modules:
    layers: keys.Modules = {
        f"{block}.qkv": keys.each(f"{block}.attn1.to_{{}}", "qkv"),
        f"{block}.attention_out": (f"{block}.attn1.to_out.0",),
        f"{block}.cross.q": (f"{block}.attn2.to_q",),
        f"{block}.cross.text.kv": keys.each(f"{block}.attn2.to_{{}}", "kv"),
        f"{block}.cross.out": (f"{block}.attn2.to_out.0",),
        f"{block}.mlp_in": (f"{block}.ffn.net.0.proj",),
        f"{block}.mlp_out": (f"{block}.ffn.net.2",),
    }
    if config.cross_attn_norm:
        layers[f"{block}.cross_norm"] = (f"{block}.norm2",)
    if config.added_kv_proj_dim is not None:
        layers[f"{block}.cross.image.kv"] = keys.each(f"{block}.attn2.add_{{}}_proj", "kv")
    return layers


def _norms(block: str, config: WanConfig) -> keys.Modules:
    norms: keys.Modules = {
        f"{block}.qk_norm": keys.each(f"{block}.attn1.norm_{{}}", "qk"),
        f"{block}.cross.norm_q": (f"{block}.attn2.norm_q",),
        f"{block}.cross.text.norm_k": (f"{block}.attn2.norm_k",),
    }
    if config.added_kv_proj_dim is not None:
        norms[f"{block}.cross.image.norm_k"] = (f"{block}.attn2.norm_added_k",)
    return norms
