"""ControlNets for several kinds of pictures, for UNets (ControlNet++ for Stable Diffusion XL)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from multimodal_gen.configs.control.modes import UNET_MODES
from multimodal_gen.runtime.controls.control import (
    Control,
    ControlCall,
    ControlDescription,
    ControlPicture,
    ControlTarget,
    Told,
)
from multimodal_gen.runtime.controls.kinds.controlnet import ControlNet, ControlNetKind
from multimodal_gen.runtime.controls.unets import TASKS, is_controlnet, load_controlnet
from multimodal_gen.runtime.distributed.device_copies import tensor_of


class ControlNetUnion(ControlNet):
    """A network that is told what a picture shows."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.modes = UNET_MODES[: self.module.config.num_control_type]

    def prepared(self, picture: ControlPicture) -> Mapping[str, Told]:
        number = tensor_of([UNET_MODES.index(picture.mode or "")], self.module.device)
        told = super().prepared(picture)
        return {branch: {**each, "mode": number} for branch, each in told.items()}

    def run(self, call: ControlCall) -> list[Tensor]:
        modes, picture = call.told["mode"], call.told["picture"]
        count = self.module.config.num_control_type
        kinds = torch.nn.functional.one_hot(modes, count).to(picture.dtype)
        down, mid = self.module(
            controlnet_cond=[picture],
            control_type=kinds,
            control_type_idx=[modes],
            conditioning_scale=[1.0],
            return_dict=False,
            **self.arguments(call),
        )
        return [*down, mid]


class ControlNetUnionKind(ControlNetKind):
    """Networks in the library's layout."""

    class_name = "ControlNetUnionModel"

    def reads(self, described: ControlDescription) -> bool:
        return is_controlnet(described) and bool(described.shape(TASKS))

    def load(self, described: ControlDescription, target: ControlTarget) -> Control:
        return ControlNetUnion(load_controlnet(described, target, self.class_name))


KIND = ControlNetUnionKind()
