"""Names in PixArt-alpha/PixArt-sigma."""

from __future__ import annotations

from multimodal_gen.runtime.loader.original.table import prefixed

NAMES = {
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "adaln_single.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "adaln_single.emb.timestep_embedder.linear_2",
    "t_block.1": "adaln_single.linear",
    "y_embedder.y_proj.fc1": "caption_projection.linear_1",
    "y_embedder.y_proj.fc2": "caption_projection.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.scale_shift_table": "scale_shift_table",
    **prefixed(
        "blocks.#.",
        {
            "scale_shift_table": "scale_shift_table",
            "attn.qkv": "attn1.to_q attn1.to_k attn1.to_v",
            "attn.proj": "attn1.to_out.0",
            "cross_attn.q_linear": "attn2.to_q",
            "cross_attn.kv_linear": "attn2.to_k attn2.to_v",
            "cross_attn.proj": "attn2.to_out.0",
            "mlp.fc1": "ff.net.0.proj",
            "mlp.fc2": "ff.net.2",
        },
        "transformer_blocks.#.",
    ),
}
