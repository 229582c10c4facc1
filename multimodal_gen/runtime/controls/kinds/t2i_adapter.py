"""T2I-Adapters for the UNets of Stable Diffusion 1, 2 and XL."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import PIL.Image
from torch import nn

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
from multimodal_gen.runtime.controls.unets import UNET
from multimodal_gen.runtime.models.vaes.input_images import fit_control

_CLASS = "T2IAdapter"
_XL = "full_adapter_xl"


class T2IAdapter(ResidualControl):
    """Features of the picture, made once, are added between the UNet's blocks."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self._is_grey = self.module.config.in_channels == 1
        self._multiple = self.module.config.downscale_factor

    def misuse(self, mode: str | None, height: int, width: int) -> str | None:
        if height % self._multiple or width % self._multiple:
            return f"needs a width and height that are multiples of {self._multiple}"
        return super().misuse(mode, height, width)

    def prepared(self, picture: ControlPicture) -> Mapping[str, Told]:
        shown = picture.pixels
        if self._is_grey:
            shown = np.asarray(PIL.Image.fromarray(shown).convert("L"))
        pixels = fit_control(shown, picture.height, picture.width)
        features = self.module(pixels.to(self.module.device, self.module.dtype))
        told = {str(number): feature for number, feature in enumerate(features)}
        return dict.fromkeys(picture.branches, told)

    def residuals(self, call: ControlCall) -> Added:
        features = scaled(call.told.values(), call.scale)
        return {"down_intrablock_additional_residuals": features}


class T2IAdapterKind(ControlKind):
    """Adapters with their config."""

    def reads(self, described: ControlDescription) -> bool:
        return described.class_name == _CLASS

    def misfit(self, described: ControlDescription, target: ControlTarget) -> str | None:
        config, unet = described.config, target.config
        is_xl = config.get("adapter_type") == _XL
        named = "Stable Diffusion XL" if is_xl else "Stable Diffusion 1 and 2"
        if target.class_name != UNET or is_xl != (unet["addition_embed_type"] == "text_time"):
            return f"is a T2I-Adapter for {named}"
        channels, blocks = list(config.get("channels", ())), list(unet["block_out_channels"])
        if channels != blocks[: len(channels)] and blocks != channels[: len(blocks)]:
            return f"is a T2I-Adapter for {named} with other blocks"
        return None

    def load(self, described: ControlDescription, target: ControlTarget) -> Control:
        return T2IAdapter(load_module(described, target, _CLASS, described.config))


KIND = T2IAdapterKind()
