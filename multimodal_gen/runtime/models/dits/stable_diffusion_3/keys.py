"""Maps the parameters of `SD3Transformer` to tensors of a diffusers checkpoint."""

from __future__ import annotations

from multimodal_gen.runtime.models.dits import keys
from multimodal_gen.runtime.models.dits.stable_diffusion_3.config import SD3Config

_NORMS = {"image": "attn.norm_{}", "text": "attn.norm_added_{}", "image_alone": "attn2.norm_{}"}


def sd3_key_map(config: SD3Config) -> dict[str, tuple[str, ...]]:
    """Map our parameters' names to diffusers' names; several are concatenated along dim 0, in
    order.

    It contains every parameter, and every tensor of a checkpoint of this config, exactly once.
    """
    layers = keys.embedders("time_embedder", "text_embedder")
    layers |= {name: (name,) for name in ("context_embedder", "proj_out")}
    layers |= {"patch_embed": ("pos_embed.proj",), "out_modulation": ("norm_out.linear",)}
    norms: keys.Modules = {}
    for i in range(config.num_layers):
        ours, theirs = f"blocks.{i}", f"transformer_blocks.{i}"
        layers[f"{ours}.modulation"] = (f"{theirs}.norm1.linear", f"{theirs}.norm1_context.linear")
        layers |= keys.image_stream(f"{ours}.image", theirs)
        text = keys.text_stream(f"{ours}.text", theirs)
        ends = config.ends_text(i)
        layers |= {f"{ours}.text.qkv": text[f"{ours}.text.qkv"]} if ends else text
        streams = ["image", "text"]
        if i in config.dual_attention_layers:
            streams.append("image_alone")
            layers[f"{ours}.image_alone.qkv"] = keys.each(f"{theirs}.attn2.to_{{}}", "qkv")
            layers[f"{ours}.image_alone.attention_out"] = (f"{theirs}.attn2.to_out.0",)
        if config.qk_norm is not None:
            for stream in streams:
                norms[f"{ours}.{stream}.qk_norm"] = keys.each(f"{theirs}.{_NORMS[stream]}", "qk")
    return keys.parameters(layers, norms) | {"pos_embed": ("pos_embed.pos_embed",)}
