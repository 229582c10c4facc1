"""The VAEs of Wan 2.1, which Qwen-Image has too, and of Wan 2.2 TI2V."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

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
_OUTER = re.compile(r"(?:conv[12]|(?:encoder|decoder)\.(?:conv1|head\.[02]|middle\.[012]))\.")
_SAMPLER = ("resample.", "time_conv.")


def wan_vae_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert names."""
    places = _places(tensors)
    return {_converted(name, places): tensor for name, tensor in tensors.items()}


def _converted(name: str, places: Mapping[str, str]) -> str:
    match = _LEVEL.match(name) or _OUTER.match(name)
    if match is None:
        return name
    rest = name[match.end() :]
    theirs = next((each for each in _IN_RESNET if rest.startswith(f"{each}.")), None)
    if theirs is not None:
        rest = _IN_RESNET[theirs] + rest[len(theirs) :]
    return places[match[0]] + rest


def _places(names: Iterable[str]) -> dict[str, str]:
    """Diffusers' names of modules, by the original ones; both end with a dot."""
    found = [(match, name[match.end() :]) for name in names if (match := _LEVEL.match(name))]
    samplers = {match[0] for match, rest in found if rest.startswith(_SAMPLER)}
    levels = {match[0]: match for match, _ in found}
    places = {f"{theirs}.": f"{ours}." for theirs, ours in _OUTSIDE.items()}
    block = resnet = 0
    for before, match in sorted(levels.items(), key=lambda item: int(item[1][3])):
        half, way, outer, inner = match.groups()
        if inner is not None:  # Wan 2.2
            own = f"{way}sampler" if before in samplers else f"resnets.{inner}"
            places[before] = f"{half}.{way}_blocks.{outer}.{own}."
        elif half == "encoder":
            places[before] = f"encoder.down_blocks.{outer}."
        elif before in samplers:
            places[before] = f"decoder.up_blocks.{block}.upsamplers.0."
            block, resnet = block + 1, 0
        else:
            places[before] = f"decoder.up_blocks.{block}.resnets.{resnet}."
            resnet += 1
    return places
