"""Names in black-forest-labs/flux, XLabs' for the same layers, and those in Chroma."""

from __future__ import annotations

from multimodal_gen.runtime.loader.original.table import ADD_QKV, SHIFT_FIRST, TO_QKV, prefixed

NAMES = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.adaLN_modulation.1": f"{SHIFT_FIRST}norm_out.linear",
    "final_layer.linear": "proj_out",
    **{
        f"{theirs}_in.{layer}_layer": f"time_text_embed.{ours}_embedder.linear_{number}"
        for theirs, ours in (("time", "timestep"), ("vector", "text"), ("guidance", "guidance"))
        for layer, number in (("in", 1), ("out", 2))
    },
    **prefixed(
        "double_blocks.#.",
        {
            "img_mod.lin": "norm1.linear",
            "img_attn.qkv": TO_QKV,
            "img_attn.proj": "attn.to_out.0",
            "img_attn.norm.query_norm": "attn.norm_q",
            "img_attn.norm.key_norm": "attn.norm_k",
            "img_mlp.0": "ff.net.0.proj",
            "img_mlp.2": "ff.net.2",
            "txt_mod.lin": "norm1_context.linear",
            "txt_attn.qkv": ADD_QKV,
            "txt_attn.proj": "attn.to_add_out",
            "txt_attn.norm.query_norm": "attn.norm_added_q",
            "txt_attn.norm.key_norm": "attn.norm_added_k",
            "txt_mlp.0": "ff_context.net.0.proj",
            "txt_mlp.2": "ff_context.net.2",
        },
        "transformer_blocks.#.",
    ),
    **prefixed(
        "single_blocks.#.",
        {
            "modulation.lin": "norm.linear",
            "linear1": f"{TO_QKV} proj_mlp",
            "linear2": "proj_out",
            "norm.query_norm": "attn.norm_q",
            "norm.key_norm": "attn.norm_k",
            "qkv": TO_QKV,  # XLabs'
            "proj": "proj_out",  # XLabs'
        },
        "single_transformer_blocks.#.",
    ),
}
SIBLINGS = tuple(f"time_text_embed.guidance_embedder.linear_{number}" for number in (1, 2))
"""Modules that distilled models lack."""
CHROMA_NAMES = {
    **NAMES,
    **prefixed(
        "distilled_guidance_layer.",
        {
            "in_proj": "in_proj",
            "out_proj": "out_proj",
            "layers.#.in_layer": "layers.#.linear_1",
            "layers.#.out_layer": "layers.#.linear_2",
            "norms.#": "norms.#",
        },
        "distilled_guidance_layer.",
    ),
}
"""FLUX's blocks, and the network that modulates them."""
