"""Names in Tencent/HunyuanVideo."""

from __future__ import annotations

from multimodal_gen.runtime.loader.original.table import ADD_QKV, SHIFT_FIRST, TO_QKV, prefixed

_STREAMS = {
    name: theirs
    for stream, qkv, out, norms, context in (
        ("img", TO_QKV, "to_out.0", "norm", ""),
        ("txt", ADD_QKV, "to_add_out", "norm_added", "_context"),
    )
    for name, theirs in {
        f"{stream}_mod.linear": f"norm1{context}.linear",
        f"{stream}_attn_qkv": qkv,
        f"{stream}_attn_proj": f"attn.{out}",
        f"{stream}_attn_q_norm": f"attn.{norms}_q",
        f"{stream}_attn_k_norm": f"attn.{norms}_k",
        f"{stream}_mlp.fc1": f"ff{context}.net.0.proj",
        f"{stream}_mlp.fc2": f"ff{context}.net.2",
    }.items()
}
NAMES = {
    "img_in.proj": "x_embedder.proj",
    "time_in.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "time_in.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "guidance_in.mlp.0": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.mlp.2": "time_text_embed.guidance_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "final_layer.adaLN_modulation.1": f"{SHIFT_FIRST}norm_out.linear",
    "final_layer.linear": "proj_out",
    "txt_in.input_embedder": "context_embedder.proj_in",
    **prefixed(
        "txt_in.",
        {
            "t_embedder.mlp.0": "timestep_embedder.linear_1",
            "t_embedder.mlp.2": "timestep_embedder.linear_2",
            "c_embedder.linear_1": "text_embedder.linear_1",
            "c_embedder.linear_2": "text_embedder.linear_2",
        },
        "context_embedder.time_text_embed.",
    ),
    **prefixed(
        "txt_in.individual_token_refiner.blocks.#.",
        {
            "norm1": "norm1",
            "norm2": "norm2",
            "self_attn_qkv": TO_QKV,
            "self_attn_proj": "attn.to_out.0",
            "mlp.fc1": "ff.net.0.proj",
            "mlp.fc2": "ff.net.2",
            "adaLN_modulation.1": "norm_out.linear",
        },
        "context_embedder.token_refiner.refiner_blocks.#.",
    ),
    **prefixed("double_blocks.#.", _STREAMS, "transformer_blocks.#."),
    **prefixed(
        "single_blocks.#.",
        {
            "modulation.linear": "norm.linear",
            "linear1": f"{TO_QKV} proj_mlp",
            "linear2": "proj_out",
            "q_norm": "attn.norm_q",
            "k_norm": "attn.norm_k",
        },
        "single_transformer_blocks.#.",
    ),
}
SIBLINGS = tuple(f"time_text_embed.guidance_embedder.linear_{number}" for number in (1, 2))
"""Modules that distilled models lack."""
