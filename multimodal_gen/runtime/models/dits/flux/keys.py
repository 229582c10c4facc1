"""Maps the parameters of `FluxTransformer` to tensors of a diffusers checkpoint."""

from __future__ import annotations

from multimodal_gen.runtime.models.dits import keys
from multimodal_gen.runtime.models.dits.flux.config import BackboneConfig, FluxConfig


def flux_key_map(config: FluxConfig) -> dict[str, tuple[str, ...]]:
    """Map our parameters' names to diffusers' names; several are concatenated along dim 0, in
    order.

    It contains every parameter, and every tensor of a checkpoint of this config, exactly once.
    """
    layers, norms = backbone_modules(config)
    guidance = ("guidance_embedder",) if config.guidance_embeds else ()
    layers |= keys.embedders("time_embedder", "text_embedder", *guidance)
    layers["out_modulation"] = ("norm_out.linear",)
    for i in range(config.num_layers):
        theirs = f"transformer_blocks.{i}"
        layers[f"blocks.{i}.modulation"] = (
            f"{theirs}.norm1.linear",
            f"{theirs}.norm1_context.linear",
        )
    for i in range(config.num_single_layers):
        ours = f"blocks.{config.num_layers + i}"
        layers[f"{ours}.modulation"] = (f"single_transformer_blocks.{i}.norm.linear",)
    return keys.parameters(layers, norms)


def backbone_modules(config: BackboneConfig) -> tuple[keys.Modules, keys.Modules]:
    """Map the layers and norms of a `FluxBackbone`."""
    layers: keys.Modules = {
        name: (name,) for name in ("x_embedder", "context_embedder", "proj_out")
    }
    norms: keys.Modules = {}
    for i in range(config.num_layers):
        ours, theirs = f"blocks.{i}", f"transformer_blocks.{i}"
        layers |= keys.image_stream(f"{ours}.image", theirs)
        layers |= keys.text_stream(f"{ours}.text", theirs)
        for stream, names in (("image", "norm_{}"), ("text", "norm_added_{}")):
            norms[f"{ours}.{stream}.qk_norm"] = keys.each(f"{theirs}.attn.{names}", "qk")
    for i in range(config.num_single_layers):
        ours, theirs = f"blocks.{config.num_layers + i}", f"single_transformer_blocks.{i}"
        qkv = keys.each(f"{theirs}.attn.to_{{}}", "qkv")
        layers[f"{ours}.qkv_mlp"] = (*qkv, f"{theirs}.proj_mlp")
        layers[f"{ours}.proj_out"] = (f"{theirs}.proj_out",)
        norms[f"{ours}.qk_norm"] = keys.each(f"{theirs}.attn.norm_{{}}", "qk")
    return layers, norms
