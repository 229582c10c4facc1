"""Deep-compression autoencoders (mit-han-lab/efficientvit), which Sana has."""

from __future__ import annotations

from torch import Tensor

_NAMES = {
    "main.": "",
    "op_list.": "",
    "context_module": "attn",
    "local_module": "conv_out",
    "aggreg.0.0": "to_qkv_multiscale.0.proj_in",
    "aggreg.0.1": "to_qkv_multiscale.0.proj_out",
    "depth_conv.conv": "conv_depth",
    "inverted_conv.conv": "conv_inverted",
    "point_conv.conv": "conv_point",
    "point_conv.norm": "norm",
    "conv.conv.": "conv.",
    "conv1.conv": "conv1",
    "conv2.conv": "conv2",
    "conv2.norm": "norm",
    "proj.norm": "norm_out",
    "encoder.project_out.0.conv": "encoder.conv_out",
    "encoder.stages": "encoder.down_blocks",
    "decoder.project_in.conv": "decoder.conv_in",
    "decoder.project_out.0": "decoder.norm_out",
    "decoder.stages": "decoder.up_blocks",
}
"""Parts of names, exchanged in this order. Each attention has one further scale, as all published
models."""
_OUTER = {
    "encoder.project_in.conv": "encoder.conv_in",
    "decoder.project_out.2.conv": "decoder.conv_out",
}
"""Convolutions that change the resolution too in models other than Sana's."""


def dc_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert names, and split queries, keys and values."""
    plain = "encoder.project_in.conv.bias" in tensors
    names = _NAMES | {theirs: ours if plain else f"{ours}.conv" for theirs, ours in _OUTER.items()}
    converted = {}
    for name, tensor in tensors.items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        module, mark, kind = name.partition(".qkv.conv.")
        if mark:
            for part, own in zip(tensor.chunk(3), ("to_q", "to_k", "to_v"), strict=True):
                converted[f"{module}.{own}.{kind}"] = part.reshape(len(part), -1)
            continue
        module, mark, kind = name.partition(".proj.conv.")
        if mark:
            name, tensor = f"{module}.to_out.{kind}", tensor.reshape(len(tensor), -1)
        converted[name] = tensor
    return converted
