"""Names in Stable Diffusion's own UNet (CompVis, SGM), which has no blocks within its halves."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_BLOCK = re.compile(
    r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)"
)
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def unet_names(modules: Collection[str]) -> Iterator[tuple[str, str]]:
    """Original name and diffusers' name of each module."""
    first = [name for name in modules if re.fullmatch(r"down_blocks\.0\.resnets\.\d+\.conv1", name)]
    with_attention = {
        block[2]
        for block in map(_BLOCK.match, modules)
        if block and (block[1], block[3]) == ("up", "attentions")
    }
    for name in modules:
        if name in _OUTSIDE:
            yield _OUTSIDE[name], name
        elif middle := _MIDDLE.fullmatch(name):
            kind, at, rest = middle.groups()
            number = 1 if kind == "attentions" else 2 * int(at)
            yield f"middle_block.{number}.{_inside(kind, rest)}", name
        elif block := _BLOCK.fullmatch(name):
            yield _in_half(block, len(first), block[2] in with_attention), name


def _in_half(match: re.Match[str], layers: int, attends: bool) -> str:
    """Name of a module in a block that has `layers` resnets on the way down, and one more on the
    way up."""
    half, number, kind, at, rest = match.groups()
    block = int(number)
    if kind == "downsamplers":
        return f"input_blocks.{(block + 1) * (layers + 1)}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{block * (layers + 1) + layers}.{2 if attends else 1}.conv"
    where, before = ("input", 1) if half == "down" else ("output", 0)
    place = before + block * (layers + 1) + int(at)
    inner = 1 if kind == "attentions" else 0
    return f"{where}_blocks.{place}.{inner}.{_inside(kind, rest)}"


def _inside(kind: str, rest: str) -> str:
    return _RESNET.get(rest, rest) if kind == "resnets" else rest
