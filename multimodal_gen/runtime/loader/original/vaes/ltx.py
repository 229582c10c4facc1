"""The VAEs of LTX-Video, 0.9.0 to 0.9.8: lists of blocks, whose tensors show what they are."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

_BLOCK = re.compile(r"(encoder|decoder)\.(?:down|up)_blocks\.\d+\.")
_RESNET = re.compile(r"((?:encoder\.down|decoder\.up)_blocks\.\d+\.)res_blocks\.(\d+)\.")
_NAMES = {
    "res_blocks.": "resnets.",
    "conv_shortcut.": "conv_shortcut.conv.",
    "norm3.norm.": "norm3.",
    "per_channel_statistics.mean-of-means": "latents_mean",
    "per_channel_statistics.std-of-means": "latents_std",
    "decoder.last_time_embedder.": "decoder.time_embedder.",
    "decoder.last_scale_shift_table": "decoder.scale_shift_table",
}
_COLOURS = 3
_BLOCK_3D, _NEWER_BLOCK = "LTXVideoDownBlock3D", "LTXVideo095DownBlock3D"
_STRIDES = {4: "spatial", 2: "temporal", 8: "spatiotemporal"}
"""Kind of a downsampler by the number of positions that it makes one."""


class _Level(NamedTuple):
    """The resnets at one resolution, and the blocks next to them: after them in the encoder, before
    them in the decoder. Each is what the names of its tensors begin with."""

    resnets: str
    sampler: str | None
    widening: str | None


def is_original(names: Collection[str]) -> bool:
    """True for the authors' names."""
    return any(".res_blocks." in name for name in names)


def ltx_vae_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert names; statistics that nothing uses are left out."""
    if not is_original(tensors):
        return tensors
    places = _places(tensors)
    converted = {}
    for name, tensor in tensors.items():
        if match := _BLOCK.match(name):
            name = places[match[0]] + name[match.end() :]
        for theirs, ours in _NAMES.items():
            name = name.replace(theirs, ours)
        if not name.startswith("per_channel_statistics."):
            converted[name] = tensor
    return converted


def ltx_vae_config(
    shapes: Mapping[str, tuple[int, ...]], stated: Mapping[str, Any]
) -> dict[str, Any]:
    """Config for diffusers: what the tensors under the authors' names show, and what the config in
    their file states."""
    down, up = _levels(shapes, "encoder"), _levels(shapes, "decoder")
    widths = [_width(shapes, level) for level in down]
    types = [_downsampler(shapes, *pair) for pair in zip(down, widths[1:], strict=False)]
    newer = any(kind in _STRIDES.values() for kind in types)
    factors = [
        _inputs(shapes, level) // _width(shapes, level) if level.sampler else 1 for level in up[1:]
    ]
    noisy = [f"{level.resnets}res_blocks.0.per_channel_scale1" in shapes for level in up]
    patch = math.isqrt(shapes["encoder.conv_in.conv.weight"][1] // _COLOURS)
    space = sum(kind not in ("", "temporal") for kind in types)
    time = sum(kind not in ("", "spatial") for kind in types)
    layers = _layers(shapes)
    return {
        "latent_channels": shapes["decoder.conv_in.conv.weight"][1],
        "patch_size": patch,
        "block_out_channels": widths if newer else widths[:-1],
        "down_block_types": [_NEWER_BLOCK if newer else _BLOCK_3D] * len(types),
        "layers_per_block": [layers[level.resnets] for level in down],
        "spatio_temporal_scaling": [bool(kind) for kind in types],
        "downsample_type": [kind or "conv" for kind in types],
        "decoder_block_out_channels": [
            factor * _width(shapes, level) for factor, level in zip(factors, up[1:], strict=True)
        ][::-1],
        "decoder_layers_per_block": [layers[level.resnets] for level in up][::-1],
        "decoder_spatio_temporal_scaling": [bool(level.sampler) for level in up[1:]][::-1],
        "decoder_inject_noise": noisy[::-1],
        "upsample_factor": factors[::-1],
        "upsample_residual": [factor > 1 for factor in factors][::-1],
        "timestep_conditioning": any("last_time_embedder" in name for name in shapes),
        "decoder_causal": stated.get("causal_decoder") is True,
        "spatial_compression_ratio": patch * 2**space,
        "temporal_compression_ratio": 2**time,
    }


def _levels(names: Collection[str], half: str) -> list[_Level]:
    """Levels of a half in the order in which they are computed."""
    found = [(match[0], name[match.end() :]) for name in names if (match := _BLOCK.match(name))]
    blocks = {block: "widening" for block, _ in found if block.startswith(half)}
    for block, rest in found:
        kind = rest.partition(".")[0]
        if block in blocks and kind in ("res_blocks", "conv"):
            blocks[block] = kind
    levels: list[_Level] = []
    before: dict[str, str] = {}
    for block in sorted(blocks, key=lambda name: int(name.split(".")[2])):
        kind = "sampler" if blocks[block] == "conv" else blocks[block]
        if kind == "res_blocks":
            levels.append(_Level(block, before.get("sampler"), before.get("widening")))
            before = {}
        elif half == "encoder" and levels:
            levels[-1] = levels[-1]._replace(**{kind: block})
        else:
            before[kind] = block
    return levels


def _places(names: Collection[str]) -> dict[str, str]:
    """Diffusers' names of the blocks, by the original ones."""
    *down, last = _levels(names, "encoder")
    first, *up = _levels(names, "decoder")
    places: dict[str | None, str] = {
        last.resnets: "encoder.mid_block.",
        first.resnets: "decoder.mid_block.",
    }
    for number, level in enumerate(down):
        places[level.resnets] = f"encoder.down_blocks.{number}."
        places[level.sampler] = f"encoder.down_blocks.{number}.downsamplers.0."
        places[level.widening] = f"encoder.down_blocks.{number}.conv_out."
    for number, level in enumerate(up):
        places[level.resnets] = f"decoder.up_blocks.{number}."
        places[level.sampler] = f"decoder.up_blocks.{number}.upsamplers.0."
        places[level.widening] = f"decoder.up_blocks.{number}.conv_in."
    return {block: place for block, place in places.items() if block is not None}


def _width(shapes: Mapping[str, tuple[int, ...]], level: _Level) -> int:
    return shapes[f"{level.resnets}res_blocks.0.conv1.conv.weight"][0]


def _layers(names: Iterable[str]) -> Counter[str]:
    """Number of resnets of each block."""
    resnets = {match.groups() for match in map(_RESNET.match, names) if match}
    return Counter(block for block, _ in resnets)


def _inputs(shapes: Mapping[str, tuple[int, ...]], level: _Level) -> int:
    """Channels before an upsampler."""
    return shapes[f"{level.sampler}conv.conv.weight"][1]


def _downsampler(shapes: Mapping[str, tuple[int, ...]], level: _Level, following: int) -> str:
    """Type of the downsampler before a level of `following` channels: empty for none, `conv` for a
    strided convolution."""
    if level.sampler is None:
        return ""
    packed = shapes.get(f"{level.sampler}conv.conv.weight")
    return "conv" if packed is None else _STRIDES.get(following // packed[0], "conv")
