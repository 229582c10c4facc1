"""Names in krea-ai/krea-2."""

from __future__ import annotations

from multimodal_gen.runtime.loader.original.table import prefixed

_BLOCK = {
    "attn.wq": "attn.to_q",
    "attn.wk": "attn.to_k",
    "attn.wv": "attn.to_v",
    "attn.wo": "attn.to_out.0",
    "attn.gate": "attn.to_gate",
    "attn.qknorm.qnorm": "attn.norm_q",
    "attn.qknorm.knorm": "attn.norm_k",
    "mlp.gate": "ff.gate",
    "mlp.up": "ff.up",
    "mlp.down": "ff.down",
    "prenorm": "norm1",
    "postnorm": "norm2",
}
NAMES = {
    "first": "img_in",
    "tmlp.0": "time_embed.linear_1",
    "tmlp.2": "time_embed.linear_2",
    "tproj.1": "time_mod_proj",
    "txtmlp.0": "txt_in.norm",
    "txtmlp.1": "txt_in.linear_1",
    "txtmlp.3": "txt_in.linear_2",
    "txtfusion.projector": "text_fusion.projector",
    "last.norm": "final_layer.norm",
    "last.linear": "final_layer.linear",
    **prefixed("blocks.#.", _BLOCK, "transformer_blocks.#."),
    **prefixed("txtfusion.layerwise_blocks.#.", _BLOCK, "text_fusion.layerwise_blocks.#."),
    **prefixed("txtfusion.refiner_blocks.#.", _BLOCK, "text_fusion.refiner_blocks.#."),
}
