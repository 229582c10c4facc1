"""The VAEs of Wan 2.1, which Qwen-Image has too, and of Wan 2.2 TI2V."""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import Tensor

_OUTSIDE = {
    "conv1": "quant_conv",
    "conv2": "post_quant_conv",
    **{
        f"{half}.{theirs}": f"{half}.{ours}"
        for half in ("encoder", "decoder")
        for theirs, ours in (
            ("conv1", "conv_in"),
            ("head.0", "norm_out"),
            ("head.2", "conv_out"),
            ("middle.0", "mid_block.resnets.0"),
            ("middle.1", "mid_block.attentions.0"),
            ("middle.2", "mid_block.resnets.1"),
        )
    },
}
_IN_RESNET = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}
_LEVEL = re.compile(r"(encoder|decoder)\.(down|up)samples\.(\d+)\.(?:(?:down|up)samples\.(\d+)\.)?")


def wan_vae_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert names."""
    places = _places(tensors)
    return {_converted(name, places): tensor for name, tensor in tensors.items()}


def _converted(name: str, places: dict[str, str]) -> str:
    before = next((each for each in places if name.startswith(each)), "")
    rest = name[len(before) :]
    theirs = next((each for each in _IN_RESNET if rest.startswith(f"{each}.")), None)
    if before and theirs is not None:
        rest = _IN_RESNET[theirs] + rest[len(theirs) :]
    return places.get(before, "") + rest


def _places(names: Collection[str]) -> dict[str, str]:
    """Diffusers' names of modules, by the original ones; both end with a dot."""
    levels = {match[0]: match for match in map(_LEVEL.match, names) if match}
    places = {f"{theirs}.": f"{ours}." for theirs, ours in _OUTSIDE.items()}
    block = resnet = 0
    for before, match in sorted(levels.items(), key=lambda item: int(item[1][3])):
        half, way, outer, inner = match.groups()
        samples = any(n.startswith((f"{before}resample.", f"{before}time_conv.")) for n in names)
        if inner is not None:  # Wan 2.2
            own = f"{way}sampler" if samples else f"resnets.{inner}"
            places[before] = f"{half}.{way}_blocks.{outer}.{own}."
        elif half == "encoder":
            places[before] = f"encoder.down_blocks.{outer}."
        elif samples:
            places[before] = f"decoder.up_blocks.{block}.upsamplers.0."
            block, resnet = block + 1, 0
        else:
            places[before] = f"decoder.up_blocks.{block}.resnets.{resnet}."
            resnet += 1
    return places
