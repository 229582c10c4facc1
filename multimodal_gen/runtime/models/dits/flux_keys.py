"""Which tensors of a diffusers checkpoint make up each parameter of `FluxTransformer`."""

from __future__ import annotations

from multimodal_gen.runtime.models.dits.flux_config import FluxConfig


def flux_key_map(config: FluxConfig) -> dict[str, tuple[str, ...]]:
    """Our parameter's name -> diffusers' names; several are concatenated along dim 0, in order.

    Every parameter is in it once, and so is every tensor of a checkpoint of this config.
    """
    layers = _embedders(config) | {"modulation": _modulation(config), "proj_out": ("proj_out",)}
    norms: dict[str, tuple[str, ...]] = {}
    for i in range(config.num_layers):
        ours, theirs = f"double_blocks.{i}", f"transformer_blocks.{i}"
        layers |= _double(ours, theirs)
        for stream, names in (("image", "norm_{}"), ("text", "norm_added_{}")):
            norms[f"{ours}.{stream}.qk_norm"] = _each(f"{theirs}.attn.{names}", "qk")
    for i in range(config.num_single_layers):
        ours, theirs = f"single_blocks.{i}", f"single_transformer_blocks.{i}"
        layers[f"{ours}.qkv_mlp"] = (*_each(f"{theirs}.attn.to_{{}}", "qkv"), f"{theirs}.proj_mlp")
        layers[f"{ours}.proj_out"] = (f"{theirs}.proj_out",)
        norms[f"{ours}.qk_norm"] = _each(f"{theirs}.attn.norm_{{}}", "qk")
    kinds = ((layers, ("weight", "bias")), (norms, ("weight",)))
    return {
        f"{ours}.{suffix}": tuple(f"{name}.{suffix}" for name in theirs)
        for modules, suffixes in kinds
        for ours, theirs in modules.items()
        for suffix in suffixes
    }


def _each(name: str, letters: str) -> tuple[str, ...]:
    return tuple(name.format(letter) for letter in letters)


def _embedders(config: FluxConfig) -> dict[str, tuple[str, ...]]:
    embedders = {"time_embedder": "timestep_embedder", "text_embedder": "text_embedder"}
    if config.guidance_embeds:
        embedders["guidance_embedder"] = "guidance_embedder"
    layers: dict[str, tuple[str, ...]] = {
        f"{ours}.{layer}": (f"time_text_embed.{theirs}.{layer}",)
        for ours, theirs in embedders.items()
        for layer in ("linear_1", "linear_2")
    }
    return layers | {name: (name,) for name in ("x_embedder", "context_embedder")}


def _modulation(config: FluxConfig) -> tuple[str, ...]:
    doubles = (
        f"transformer_blocks.{i}.{norm}.linear"
        for i in range(config.num_layers)
        for norm in ("norm1", "norm1_context")
    )
    singles = (
        f"single_transformer_blocks.{i}.norm.linear" for i in range(config.num_single_layers)
    )
    return ("norm_out.linear", *doubles, *singles)


def _double(ours: str, theirs: str) -> dict[str, tuple[str, ...]]:
    return {
        f"{ours}.image.qkv": _each(f"{theirs}.attn.to_{{}}", "qkv"),
        f"{ours}.image.attention_out": (f"{theirs}.attn.to_out.0",),
        f"{ours}.image.mlp_in": (f"{theirs}.ff.net.0.proj",),
        f"{ours}.image.mlp_out": (f"{theirs}.ff.net.2",),
        f"{ours}.text.qkv": _each(f"{theirs}.attn.add_{{}}_proj", "qkv"),
        f"{ours}.text.attention_out": (f"{theirs}.attn.to_add_out",),
        f"{ours}.text.mlp_in": (f"{theirs}.ff_context.net.0.proj",),
        f"{ours}.text.mlp_out": (f"{theirs}.ff_context.net.2",),
    }
