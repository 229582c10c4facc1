"""Names in Stability-AI/sd3.5."""

from __future__ import annotations

from multimodal_gen.runtime.loader.original.table import ADD_QKV, SHIFT_FIRST, TO_QKV, prefixed

NAMES = {
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "final_layer.adaLN_modulation.1": f"{SHIFT_FIRST}norm_out.linear",
    "final_layer.linear": "proj_out",
    **prefixed(
        "joint_blocks.#.",
        {
            "x_block.adaLN_modulation.1": "norm1.linear",
            "x_block.attn.qkv": TO_QKV,
            "x_block.attn.proj": "attn.to_out.0",
            "x_block.attn.ln_q": "attn.norm_q",
            "x_block.attn.ln_k": "attn.norm_k",
            "x_block.attn2.qkv": TO_QKV.replace("attn", "attn2"),
            "x_block.attn2.proj": "attn2.to_out.0",
            "x_block.attn2.ln_q": "attn2.norm_q",
            "x_block.attn2.ln_k": "attn2.norm_k",
            "x_block.mlp.fc1": "ff.net.0.proj",
            "x_block.mlp.fc2": "ff.net.2",
            "context_block.adaLN_modulation.1": "norm1_context.linear",
            "context_block.attn.qkv": ADD_QKV,
            "context_block.attn.proj": "attn.to_add_out",
            "context_block.attn.ln_q": "attn.norm_added_q",
            "context_block.attn.ln_k": "attn.norm_added_k",
            "context_block.mlp.fc1": "ff_context.net.0.proj",
            "context_block.mlp.fc2": "ff_context.net.2",
        },
        "transformer_blocks.#.",
    ),
    "joint_blocks.$.context_block.adaLN_modulation.1": (
        f"{SHIFT_FIRST}transformer_blocks.$.norm1_context.linear"
    ),
}
