"""ControlNets for the UNets of Stable Diffusion 1, 2 and XL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
from multimodal_gen.runtime.controls.unets import (
    TASKS,
    controlnet_misfit,
    is_controlnet,
    load_controlnet,
)
from multimodal_gen.runtime.models.vaes.input_images import fit_control


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
        named = described.class_name in ("", self.class_name)
        return named and is_controlnet(described) and not described.shape(TASKS)

    def misfit(self, described: ControlDescription, target: ControlTarget) -> str | None:
        return controlnet_misfit(described, target)

    def load(self, described: ControlDescription, target: ControlTarget) -> Control:
        return ControlNet(load_controlnet(described, target, self.class_name))


KIND = ControlNetKind()
