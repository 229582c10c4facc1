"""Names in MiniMax-AI/MiniMax-H3, with queries, keys and values one after the other."""

from __future__ import annotations

from multimodal_gen.runtime.loader.original.table import SHIFT_FIRST, TO_QKV, prefixed

_BLOCK = {
    "attn.qkv_proj": TO_QKV,
    "attn.out_proj": "attn.to_out.0",
    "attn.q_norm": "attn.norm_q",
    "attn.k_norm": "attn.norm_k",
    "mlp.fc2": "ff.net.2",
    "adaln_proj.linear": "adaln_proj.linear",
    "norm1": "norm1",
    "norm2": "norm2",
}
_BLOCKS = {
    "blocks.#.": "transformer_blocks.#.",
    "token_refiner.blocks.#.": "token_refiner.refiner_blocks.#.",
}
ALPHA = "alpha"
BY_HEAD = ("attn.to_q", "attn.norm_q")
NAMES = {
    "video_patch_proj": "proj_in",
    "audio_patch_proj": "audio_proj_in",
    "condition_proj": "context_embedder",
    "time_embedder.proj_in": "time_embedder.linear_1",
    "time_embedder.proj_out": "time_embedder.linear_2",
    "final_layer.norm": "norm_out.norm",
    "final_layer.adaln_proj.linear": "norm_out.linear",
    "final_layer.video_out": "proj_out",
    "final_layer.audio_out": "audio_proj_out",
    **{
        name: others
        for ours, theirs in _BLOCKS.items()
        for name, others in prefixed(ours, _BLOCK, theirs).items()
    },
    **{  # the gate comes first, in diffusers the value
        f"{ours}mlp.fc1": f"{SHIFT_FIRST}{theirs}ff.net.0.proj" for ours, theirs in _BLOCKS.items()
    },
}
