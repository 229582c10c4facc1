"""Names in black-forest-labs/flux2."""

from __future__ import annotations

from multimodal_gen.runtime.loader.original.table import ADD_QKV, SHIFT_FIRST, TO_QKV, prefixed

NAMES = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    "final_layer.adaLN_modulation.1": f"{SHIFT_FIRST}norm_out.linear",
    "final_layer.linear": "proj_out",
    **prefixed(
        "double_blocks.#.",
        {
            "img_attn.qkv": TO_QKV,
            "img_attn.proj": "attn.to_out.0",
            "img_attn.norm.query_norm": "attn.norm_q",
            "img_attn.norm.key_norm": "attn.norm_k",
            "img_mlp.0": "ff.linear_in",
            "img_mlp.2": "ff.linear_out",
            "txt_attn.qkv": ADD_QKV,
            "txt_attn.proj": "attn.to_add_out",
            "txt_attn.norm.query_norm": "attn.norm_added_q",
            "txt_attn.norm.key_norm": "attn.norm_added_k",
            "txt_mlp.0": "ff_context.linear_in",
            "txt_mlp.2": "ff_context.linear_out",
        },
        "transformer_blocks.#.",
    ),
    **prefixed(
        "single_blocks.#.",
        {
            "linear1": "to_qkv_mlp_proj",
            "linear2": "to_out",
            "norm.query_norm": "norm_q",
            "norm.key_norm": "norm_k",
        },
        "single_transformer_blocks.#.attn.",
    ),
}
SIBLINGS = tuple(f"time_guidance_embed.guidance_embedder.linear_{number}" for number in (1, 2))
"""Modules that distilled models lack."""
