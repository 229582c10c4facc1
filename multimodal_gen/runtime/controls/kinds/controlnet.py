"""ControlNets for the UNets of Stable Diffusion 1, 2 and XL."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from diffusers import ControlNetModel
from torch import Tensor, nn

from multimodal_gen.runtime.controls.control import (
    Added,
    Control,
    ControlCall,
    ControlDescription,
    ControlKind,
    ControlPicture,
    ControlTarget,
    ResidualControl,
    Told,
    scaled,
)
from multimodal_gen.runtime.controls.loading import load_module
from multimodal_gen.runtime.models.vaes.input_images import fit_control

_UNET = "UNet2DConditionModel"
_NAMES = {
    768: "Stable Diffusion 1",
    1024: "Stable Diffusion 2",
    2048: "Stable Diffusion XL",
}
"""Models whose texts have such a width."""
_ORIGINAL = "zero_convs.0.0.weight"
_PREFIX = "control_model."
_RESIDUAL = re.compile(
    r"(?:control_model\.)?(?:controlnet_down_blocks|zero_convs)\.(\d+)\..*weight"
)


class ControlNet(ResidualControl):
    """Runs the library's network on its rows."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        config = self.module.config
        self._pools = bool(config.global_pool_conditions)
        self._flips = config.controlnet_conditioning_channel_order == "bgr"
        # The embedding of a picture is made once, and the network is given that.
        self._embed = self.module.controlnet_cond_embedding
        self.module.controlnet_cond_embedding = nn.Identity()
        self.module.register_to_config(
            controlnet_conditioning_channel_order="rgb", global_pool_conditions=False
        )
        self._embed_parameters = tuple(self._embed.parameters())

    @property
    def tensors(self) -> list[Tensor]:
        return [*super().tensors, *self._embed_parameters]

    def prepared(self, picture: ControlPicture) -> Mapping[str, Told]:
        """Embed the picture. One whose residuals are pooled steers only the prompt, as in the
        library."""
        pixels = fit_control(picture.pixels, picture.height, picture.width)
        pixels = pixels.to(self.module.device, self.module.dtype)
        told = {"picture": self._embed(pixels.flip(1) if self._flips else pixels)}
        return dict.fromkeys(picture.branches[:1] if self._pools else picture.branches, told)

    def residuals(self, call: ControlCall) -> Added:
        *down, mid = scaled(self.run(call), call.scale)
        if self._pools:
            down = [each.mean((2, 3), keepdim=True).expand_as(each) for each in down]
            mid = mid.mean((2, 3), keepdim=True).expand_as(mid)
        return {
            "down_block_additional_residuals": down,
            "mid_block_additional_residual": mid,
        }

    def run(self, call: ControlCall) -> list[Tensor]:
        """Residuals of the blocks on the way down, then that of the middle."""
        down, mid = self.module(
            controlnet_cond=call.told["picture"], return_dict=False, **self.arguments(call)
        )
        return [*down, mid]

    def arguments(self, call: ControlCall) -> dict[str, Any]:
        """Arguments that the network shares with the UNet."""
        config, given = self.module.config, call.tensors
        arguments = {
            # A UNet for inpainting is also shown the mask and the image.
            "sample": given["latents"][:, : config.in_channels].to(self.module.dtype),
            "timestep": given["timestep"],
            "encoder_hidden_states": given["encoder_hidden_states"],
        }
        if config.addition_embed_type == "text_time":
            added = {name: given[name] for name in ("text_embeds", "time_ids")}
            arguments["added_cond_kwargs"] = added
        return arguments


class ControlNetKind(ControlKind):
    """Networks in the library's layout, or in the original one."""

    class_name = "ControlNetModel"

    def reads(self, described: ControlDescription) -> bool:
        if described.class_name:
            return described.class_name == self.class_name
        own = described.header.tensors.keys()
        return bool(own & {"controlnet_down_blocks.0.weight", _ORIGINAL, _PREFIX + _ORIGINAL})

    def misfit(self, described: ControlDescription, target: ControlTarget) -> str | None:
        width = _text_width(described)
        named = _NAMES.get(width, f"a UNet whose texts have width {width}")
        if target.class_name != _UNET or width != target.config["cross_attention_dim"]:
            return f"is a ControlNet for {named}"
        if _residual_channels(described) != _unet_channels(target.config):
            return f"is a ControlNet for {named} with other blocks"
        channels = described.shape("controlnet_cond_embedding.conv_in.weight")
        if channels and channels[1] != 3:
            return f"is a ControlNet for conditions of {channels[1]} channels, not for pictures"
        return None

    def load(self, described: ControlDescription, target: ControlTarget) -> Control:
        return ControlNet(self.module(described, target))

    def module(self, described: ControlDescription, target: ControlTarget) -> nn.Module:
        """Load the library's class."""
        config = described.config or _config_of(described, target)
        return load_module(described, target, self.class_name, config, prefix=_PREFIX)


def _text_width(described: ControlDescription) -> int:
    """Width of texts, as the first attention to them takes it."""
    found = (
        info.shape[1]
        for name, info in described.header.tensors.items()
        if name.endswith("attn2.to_k.weight") and len(info.shape) == 2
    )
    return next(found, 0)


def _residual_channels(described: ControlDescription) -> list[int]:
    found = {
        int(match[1]): info.shape[0]
        for name, info in described.header.tensors.items()
        if (match := _RESIDUAL.fullmatch(name)) and info.shape
    }
    return [channels for _, channels in sorted(found.items())]


def _unet_channels(config: Mapping[str, Any]) -> list[int]:
    """Channels of what a UNet's blocks on the way down pass on."""
    blocks = config["block_out_channels"]
    layers = config["layers_per_block"]
    each = layers if isinstance(layers, list | tuple) else [layers] * len(blocks)
    found = [blocks[0]]
    for number, (channels, count) in enumerate(zip(blocks, each, strict=True), 1):
        found += [channels] * (count + (number < len(blocks)))
    return found


def _config_of(described: ControlDescription, target: ControlTarget) -> dict[str, Any]:
    """Config for a file that has none: the UNet's, with the blocks that the file has."""
    known = inspect.signature(ControlNetModel).parameters
    config = {name: value for name, value in target.config.items() if name in known}
    names = [name.removeprefix(_PREFIX) for name in described.header.tensors]
    if not any(name.startswith("down_blocks.") for name in names):
        return config
    depths = [
        len(
            {
                name.split(".")[5]
                for name in names
                if name.startswith(f"{block}.transformer_blocks.")
            }
        )
        for number in range(len(config["block_out_channels"]))
        for block in (f"down_blocks.{number}.attentions.0",)
    ]
    config["down_block_types"] = [
        "CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths
    ]
    config["transformer_layers_per_block"] = [max(depth, 1) for depth in depths]
    if not any(name.startswith("mid_block.attentions.") for name in names):
        config["mid_block_type"] = "UNetMidBlock2D"
    return config


KIND = ControlNetKind()
