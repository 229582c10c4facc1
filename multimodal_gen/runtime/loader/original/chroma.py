"""Names in Chroma's own checkpoints: FLUX's, and those of the modulation."""

from __future__ import annotations

from multimodal_gen.runtime.loader.original import flux
from multimodal_gen.runtime.loader.original.table import prefixed

_APPROXIMATOR = "distilled_guidance_layer."
NAMES = {
    **flux.NAMES,
    **prefixed(
        _APPROXIMATOR,
        {
            "in_proj": "in_proj",
            "out_proj": "out_proj",
            "layers.#.in_layer": "layers.#.linear_1",
            "layers.#.out_layer": "layers.#.linear_2",
            "norms.#": "norms.#",
        },
        _APPROXIMATOR,
    ),
}
