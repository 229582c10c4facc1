"""Maps the parameters of `WanTransformer` to tensors of a diffusers checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from multimodal_gen.runtime.models.dits import keys
from multimodal_gen.runtime.models.dits.wan.config import WanConfig, WanVaceConfig


def wan_key_map(config: WanConfig) -> dict[str, tuple[str, ...]]:
    """Map our parameters' names to diffusers' names; several are concatenated along dim 0, in
    order.

    It contains every parameter, and every tensor of a checkpoint of this config, exactly once.
    """
    blocks = {f"blocks.{i}": f"blocks.{i}" for i in range(config.num_layers)}
    return _mapped(config, blocks)


def wan_vace_key_map(config: WanVaceConfig) -> dict[str, tuple[str, ...]]:
    """The same for `WanVaceTransformer`, whose control blocks are among the others."""
    blocks: dict[str, str] = {}
    added: keys.Modules = {"control_embedding": ("vace_patch_embedding",)}
    controls = count()
    for number, layer in enumerate(config.block_order):
        ours = f"blocks.{number}"
        if layer is not None:
            blocks[ours] = f"blocks.{layer}"
            continue
        control = next(controls)
        theirs = blocks[f"{ours}.block"] = f"vace_blocks.{control}"
        projections = ("proj_out",) if control else ("proj_in", "proj_out")
        added |= {f"{ours}.{name}": (f"{theirs}.{name}",) for name in projections}
    return _mapped(config, blocks, added)


def _mapped(
    config: WanConfig, blocks: Mapping[str, str], added: keys.Modules | None = None
) -> dict[str, tuple[str, ...]]:
    """Map a model with these `blocks`, theirs by ours, and `added` layers."""
    layers = _embedders(config) | (added or {})
    norms: keys.Modules = {}
    for ours, theirs in blocks.items():
        layers |= _layers(ours, theirs, config)
        norms |= _norms(ours, theirs, config)
    names = keys.parameters(layers, norms)
    names |= {
        f"{ours}.modulation.weight": (f"{theirs}.scale_shift_table",)
        for ours, theirs in blocks.items()
    }
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


def _layers(ours: str, theirs: str, config: WanConfig) -> keys.Modules:
    layers: keys.Modules = {
        f"{ours}.qkv": keys.each(f"{theirs}.attn1.to_{{}}", "qkv"),
        f"{ours}.attention_out": (f"{theirs}.attn1.to_out.0",),
        f"{ours}.cross.q": (f"{theirs}.attn2.to_q",),
        f"{ours}.cross.text.kv": keys.each(f"{theirs}.attn2.to_{{}}", "kv"),
        f"{ours}.cross.out": (f"{theirs}.attn2.to_out.0",),
        f"{ours}.mlp_in": (f"{theirs}.ffn.net.0.proj",),
        f"{ours}.mlp_out": (f"{theirs}.ffn.net.2",),
    }
    if config.cross_attn_norm:
        layers[f"{ours}.cross_norm"] = (f"{theirs}.norm2",)
    if config.added_kv_proj_dim is not None:
        layers[f"{ours}.cross.image.kv"] = keys.each(f"{theirs}.attn2.add_{{}}_proj", "kv")
    return layers


def _norms(ours: str, theirs: str, config: WanConfig) -> keys.Modules:
    norms: keys.Modules = {
        f"{ours}.qk_norm": keys.each(f"{theirs}.attn1.norm_{{}}", "qk"),
        f"{ours}.cross.norm_q": (f"{theirs}.attn2.norm_q",),
        f"{ours}.cross.text.norm_k": (f"{theirs}.attn2.norm_k",),
    }
    if config.added_kv_proj_dim is not None:
        norms[f"{ours}.cross.image.norm_k"] = (f"{theirs}.attn2.norm_added_k",)
    return norms
