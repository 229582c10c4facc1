"""Names in Lightricks/LTX-Video."""

from __future__ import annotations

NAMES = {
    "patchify_proj": "proj_in",
    "adaln_single.emb.timestep_embedder.linear_1": "time_embed.emb.timestep_embedder.linear_1",
    "adaln_single.emb.timestep_embedder.linear_2": "time_embed.emb.timestep_embedder.linear_2",
    "adaln_single.linear": "time_embed.linear",
    **{
        f"transformer_blocks.#.{attention}.{letter}_norm": (
            f"transformer_blocks.#.{attention}.norm_{letter}"
        )
        for attention in ("attn1", "attn2")
        for letter in "qk"
    },
}
