"""Maps the parameters of `Flux2Transformer` to tensors of a diffusers checkpoint."""

from __future__ import annotations

from multimodal_gen.runtime.models.dits.flux2.config import Flux2Config
from multimodal_gen.runtime.models.dits.keys import Modules, each

_MODULATION = (
    "norm_out.linear",
    "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.linear",
    "single_stream_modulation.linear",
)


def flux2_key_map(config: Flux2Config) -> dict[str, tuple[str, ...]]:
    """Map our parameters' names to diffusers' names; several are concatenated along dim 0, in
    order.

    It contains every parameter, and every tensor of a checkpoint of this config, exactly once.
    """
    modules: Modules = {name: (name,) for name in ("x_embedder", "context_embedder", "proj_out")}
    modules["modulation"] = _MODULATION
    embedders = {"time_embedder": "timestep_embedder"}
    if config.guidance_embeds:
        embedders["guidance_embedder"] = "guidance_embedder"
    for ours, theirs in embedders.items():
        for layer in ("linear_1", "linear_2"):
            modules[f"{ours}.{layer}"] = (f"time_guidance_embed.{theirs}.{layer}",)
    for i in range(config.num_layers):
        modules |= _double(f"blocks.{i}", f"transformer_blocks.{i}")
    for i in range(config.num_single_layers):
        ours, theirs = f"blocks.{config.num_layers + i}", f"single_transformer_blocks.{i}.attn"
        modules[f"{ours}.qkv_mlp"] = (f"{theirs}.to_qkv_mlp_proj",)
        modules[f"{ours}.qk_norm"] = each(f"{theirs}.norm_{{}}", "qk")
        modules[f"{ours}.proj_out"] = (f"{theirs}.to_out",)
    return {
        f"{ours}.weight": tuple(f"{name}.weight" for name in names)
        for ours, names in modules.items()
    }


def _double(ours: str, theirs: str) -> Modules:
    return {
        f"{ours}.image.qkv": each(f"{theirs}.attn.to_{{}}", "qkv"),
        f"{ours}.image.qk_norm": each(f"{theirs}.attn.norm_{{}}", "qk"),
        f"{ours}.image.attention_out": (f"{theirs}.attn.to_out.0",),
        f"{ours}.image.mlp_in": (f"{theirs}.ff.linear_in",),
        f"{ours}.image.mlp_out": (f"{theirs}.ff.linear_out",),
        f"{ours}.text.qkv": each(f"{theirs}.attn.add_{{}}_proj", "qkv"),
        f"{ours}.text.qk_norm": each(f"{theirs}.attn.norm_added_{{}}", "qk"),
        f"{ours}.text.attention_out": (f"{theirs}.attn.to_add_out",),
        f"{ours}.text.mlp_in": (f"{theirs}.ff_context.linear_in",),
        f"{ours}.text.mlp_out": (f"{theirs}.ff_context.linear_out",),
    }
