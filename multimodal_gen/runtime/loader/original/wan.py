"""Names in Wan-Video/Wan2.1."""

from __future__ import annotations

from multimodal_gen.runtime.loader.original.table import prefixed

_BLOCK = {
    "modulation": "scale_shift_table",
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    **{
        f"{ours}.{name}": f"{theirs}.{other}"
        for ours, theirs in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for name, other in (
            ("q", "to_q"),
            ("k", "to_k"),
            ("v", "to_v"),
            ("o", "to_out.0"),
            ("norm_q", "norm_q"),
            ("norm_k", "norm_k"),
        )
    },
    "cross_attn.k_img": "attn2.add_k_proj",
    "cross_attn.v_img": "attn2.add_v_proj",
    "cross_attn.norm_k_img": "attn2.norm_added_k",
}
NAMES = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
    **prefixed("blocks.#.", _BLOCK, "blocks.#."),
}
VACE_NAMES = {
    **NAMES,
    "vace_patch_embedding": "vace_patch_embedding",
    **prefixed(
        "vace_blocks.#.",
        {**_BLOCK, "before_proj": "proj_in", "after_proj": "proj_out"},
        "vace_blocks.#.",
    ),
}
"""Those of VACE, which is steered by videos and images."""
SIBLINGS = (
    "condition_embedder.image_embedder.ff.net.0.proj",
    "condition_embedder.image_embedder.ff.net.2",
    "condition_embedder.image_embedder.norm1",
    "condition_embedder.image_embedder.norm2",
    "condition_embedder.image_embedder.pos_embed",
    "blocks.#.attn2.add_k_proj",
    "blocks.#.attn2.add_v_proj",
    "blocks.#.attn2.norm_added_k",
    "blocks.#.attn2.norm_added_q",
)
"""Modules that only image-to-video models have."""
VARYING = ("patch_embedding",)
"""Modules that take an image's channels too in image-to-video models."""
