"""Names in Tongyi-MAI/Z-Image."""

from __future__ import annotations

from multimodal_gen.runtime.loader.original.table import prefixed

NAMES = {
    "x_embedder": "all_x_embedder.2-1",
    "final_layer.linear": "all_final_layer.2-1.linear",
    "final_layer.adaLN_modulation.1": "all_final_layer.2-1.adaLN_modulation.1",
    **{
        name: theirs
        for blocks in ("layers.#.", "noise_refiner.#.", "context_refiner.#.")
        for name, theirs in prefixed(
            f"{blocks}attention.",
            {"qkv": "to_q to_k to_v", "out": "to_out.0", "q_norm": "norm_q", "k_norm": "norm_k"},
            f"{blocks}attention.",
        ).items()
    },
}
