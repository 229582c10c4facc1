"""Names in ComfyUI's files of Qwen-Image 2.1, as far as they are not diffusers' own."""

from __future__ import annotations

NAMES = {
    "transformer_blocks.#.img_mlp.gate_up": (
        "transformer_blocks.#.img_mlp.gate_layer transformer_blocks.#.img_mlp.proj"
    ),
}
