"""Files of controls for UNets: which UNet they are for, and the config that some lack."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Mapping
from typing import Any

import diffusers
from torch import nn

from multimodal_gen.runtime.controls.control import ControlDescription, ControlTarget
from multimodal_gen.runtime.controls.loading import load_module

UNET = "UNet2DConditionModel"
TASKS = "task_embedding"
"""Only networks for several kinds of pictures have it."""
_NAMES = {
    768: "Stable Diffusion 1",
    1024: "Stable Diffusion 2",
    2048: "Stable Diffusion XL",
}
"""Models whose texts have such a width."""
_PREFIX = "control_model."
_RESIDUAL = re.compile(
    r"(?:control_model\.)?(?:controlnet_down_blocks|zero_convs)\.(\d+)(?:\.0)?\.weight"
)
_EMBEDDING = "controlnet_cond_embedding"
_EMBEDDED = (
    (f"{_EMBEDDING}.conv_in", "input_hint_block.0"),
    (f"{_EMBEDDING}.blocks.1", "input_hint_block.4"),
    (f"{_EMBEDDING}.blocks.3", "input_hint_block.8"),
    (f"{_EMBEDDING}.blocks.5", "input_hint_block.12"),
)
"""Its layers that widen, in both layouts."""
_DEPTH = re.compile(r"down_blocks\.(\d+)\.attentions\.0\.transformer_blocks\.(\d+)\..*")


def is_controlnet(described: ControlDescription) -> bool:
    """True if the file has a ControlNet for a UNet, in the library's layout or the original."""
    return bool(_residual_channels(described))


def controlnet_misfit(described: ControlDescription, target: ControlTarget) -> str | None:
    """Tell what a ControlNet is for, if that is not this model."""
    width = _text_width(described)
    named = _NAMES.get(width, f"a UNet whose texts have width {width}") if width else "a UNet"
    if target.class_name != UNET or width not in (None, target.config["cross_attention_dim"]):
        return f"is a ControlNet for {named}"
    if _residual_channels(described) != _unet_channels(target.config):
        return f"is a ControlNet for {named} with other blocks"
    channels = described.shape(f"{_EMBEDDING}.conv_in.weight")
    if channels and channels[1] != 3:
        return f"is a ControlNet for conditions of {channels[1]} channels, not for pictures"
    return None


def load_controlnet(
    described: ControlDescription, target: ControlTarget, class_name: str
) -> nn.Module:
    """Load a class of diffusers. Raises InvalidCheckpoint."""
    config = dict(described.config) or _config_of(described, target, class_name)
    if tasks := described.shape(TASKS):  # Some configs don't tell.
        config |= {"num_control_type": tasks[0], "num_trans_channel": tasks[1]}
        config["num_proj_channel"] = described.shape("spatial_ch_projs.bias")[0]
    return load_module(described, target, class_name, config, prefix=_PREFIX)


def _text_width(described: ControlDescription) -> int | None:
    """Width of texts, as the first attention to them takes it; None: small networks have none."""
    found = (
        info.shape[1]
        for name, info in described.header.tensors.items()
        if name.endswith("attn2.to_k.weight") and len(info.shape) == 2
    )
    return next(found, None)


def _residual_channels(described: ControlDescription) -> list[int]:
    found = {
        int(match[1]): info.shape[0]
        for name, info in described.header.tensors.items()
        if (match := _RESIDUAL.fullmatch(name)) and len(info.shape) == 4
    }
    return [channels for _, channels in sorted(found.items())]


def _unet_channels(config: Mapping[str, Any]) -> list[int]:
    """Channels of what a UNet's blocks on the way down pass on."""
    blocks, layers = config["block_out_channels"], config["layers_per_block"]
    counts = layers if isinstance(layers, list | tuple) else [layers] * len(blocks)
    found = [blocks[0]]
    for number, (channels, count) in enumerate(zip(blocks, counts, strict=True), 1):
        found += [channels] * (count + (number < len(blocks)))
    return found


def _config_of(
    described: ControlDescription, target: ControlTarget, class_name: str
) -> dict[str, Any]:
    """Config for a file that has none: the UNet's, with the blocks that the file has."""
    known = inspect.signature(getattr(diffusers, class_name)).parameters
    config = {name: value for name, value in target.config.items() if name in known}
    depths: dict[int, int] = {}
    for name in described.header.tensors:
        if match := _DEPTH.fullmatch(name):
            depths[int(match[1])] = max(depths.get(int(match[1]), 0), int(match[2]) + 1)
    names = described.header.tensors.keys()
    if "controlnet_mid_block.weight" in names:  # of the library's layout
        every = [depths.get(number, 0) for number in range(len(config["block_out_channels"]))]
        config["transformer_layers_per_block"] = [max(depth, 1) for depth in every]
        config["down_block_types"] = [
            "CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in every
        ]
        if not any(name.startswith("mid_block.attentions.") for name in names):
            config["mid_block_type"] = "UNetMidBlock2D"
    embedding = (
        described.shape(f"{name}.weight")[:1]
        for names in _EMBEDDED
        for name in (*names, _PREFIX + names[1])
    )
    config["conditioning_embedding_out_channels"] = [*itertools.chain.from_iterable(embedding)]
    config["in_channels"] = 4  # A UNet for inpainting has more.
    return config
