"""Converts FLUX.1's original names to diffusers'. (Its own converter only supports the published
width.)"""

from __future__ import annotations

import re

import torch
from torch import Tensor

_MODULES = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.linear": "proj_out",
    **{
        f"{theirs}_in.{layer}_layer": f"time_text_embed.{ours}_embedder.linear_{number}"
        for theirs, ours in (("time", "timestep"), ("vector", "text"), ("guidance", "guidance"))
        for layer, number in (("in", 1), ("out", 2))
    },
}
_DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
_SINGLE = {
    "modulation.lin": "norm.linear",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
    "linear2": "proj_out",
}
_SPLIT = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
}
_STREAMS = {"double": "transformer_blocks", "single": "single_transformer_blocks"}
_BLOCK = re.compile(r"(double|single)_blocks\.(\d+)\.(.+)")
_SHIFT_FIRST = "final_layer.adaLN_modulation.1"


def flux_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert names; those that are not FLUX.1's are left out."""
    width = len(tensors["img_in.weight"])
    converted: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        kind = "weight" if kind == "scale" else kind
        if module == _SHIFT_FIRST:  # diffusers has the scale first
            converted[f"norm_out.linear.{kind}"] = torch.cat(tensor.chunk(2)[::-1])
        elif module in _MODULES:
            converted[f"{_MODULES[module]}.{kind}"] = tensor
        elif block := _BLOCK.fullmatch(module):
            parts = _of_block(block[1], block[3], tensor, width)
            prefix = f"{_STREAMS[block[1]]}.{block[2]}"
            converted |= {f"{prefix}.{new}.{kind}": part for new, part in parts.items()}
    return converted


def _of_block(stream: str, module: str, tensor: Tensor, width: int) -> dict[str, Tensor]:
    renamed = (_DOUBLE if stream == "double" else _SINGLE).get(module)
    if renamed is not None:
        return {renamed: tensor}
    split = _SPLIT.get(module)
    if split is None:
        return {}
    sizes = [width] * (len(split) - 1)
    parts = tensor.split([*sizes, len(tensor) - sum(sizes)])
    return dict(zip(split, parts, strict=True))
