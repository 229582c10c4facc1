"""ControlNets for FLUX.1: of single kinds of picture, and unions of several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from multimodal_gen.configs.control.modes import FLUX_MODES
from multimodal_gen.runtime.controls.control import (
    Added,
    ControlCall,
    ControlDescription,
    ControlPicture,
    ControlTarget,
    ResidualControl,
    Told,
    scaled,
)
from multimodal_gen.runtime.controls.transformer_kind import TransformerKind, count
from multimodal_gen.runtime.distributed.device_copies import copied, tensor_of
from multimodal_gen.runtime.models.controls.flux import (
    FluxControlConfig,
    FluxControlNet,
    flux_control_key_map,
)
from multimodal_gen.runtime.models.vaes.input_images import fit_image

_TEXT = ("encoder_hidden_states", "pooled_projections")


class FluxControl(ResidualControl):
    """Runs the network on its rows, whose text is the prompt also where that of the row is the
    negative one, as in the library."""

    def __init__(self, network: FluxControlNet, target: ControlTarget) -> None:
        super().__init__(network)
        self._context = target.context
        self._blocks = (target.config["num_layers"], target.config["num_single_layers"])
        modes = range(network.config.num_mode or 0)
        named = {name: mode for mode, name in zip(modes, FLUX_MODES, strict=False)}
        if "pose" in named:
            named["openpose"] = named["pose"]  # its name in other unions and in ComfyUI's graphs
        self._numbers = {**named, **{str(mode): mode for mode in modes}}
        self.modes = tuple(self._numbers)

    def prepared(self, picture: ControlPicture) -> Mapping[str, Told]:
        context, positive = self._context, picture.conditioning["positive"]
        if self.module.hint is None:
            shown = picture.latents(drawn=True).to(context.dtype)
        else:
            pixels = fit_image(picture.pixels, picture.height, picture.width)
            shown = self.module.hint(copied(pixels, context.device, context.dtype))
        told = {"picture": shown, **{name: positive[name] for name in _TEXT}}
        if self.module.config.guidance_embeds:
            told["guidance"] = tensor_of([float(picture.guidance_scale or 0)], context.device)
        if picture.mode is not None:
            told["mode"] = tensor_of([self._numbers[picture.mode]], context.device)
        return dict.fromkeys(picture.branches, told)

    def residuals(self, call: ControlCall) -> Added:
        given = {name: call.tensors[name] for name in ("hidden_states", "timestep")}
        found = scaled(self.module.residuals(**given, **call.told), call.scale)
        return {"control": self.module.spread(found, *self._blocks)}


class FluxControlKind(TransformerKind[FluxControlConfig]):
    class_name = "FluxControlNetModel"
    own_tensors = (
        "controlnet_blocks.0.weight",
        "controlnet_x_embedder.weight",
        "time_text_embed.text_embedder.linear_1.weight",
    )
    model_class = "FluxTransformer2DModel"
    model_title = "FLUX.1"
    equal: ClassVar = (
        "in_channels",
        "attention_head_dim",
        "num_attention_heads",
        "joint_attention_dim",
        "pooled_projection_dim",
    )
    config_class = FluxControlConfig
    make = FluxControlNet
    key_map = staticmethod(flux_control_key_map)

    def found(self, described: ControlDescription, target: ControlTarget) -> dict[str, Any]:
        hint = described.shape("input_hint_block.conv_out.weight")
        modes = described.shape("controlnet_mode_embedder.weight")
        guided = "time_text_embed.guidance_embedder.linear_1.weight"
        return {
            "num_layers": count(described, "transformer_blocks"),
            "num_single_layers": count(described, "single_transformer_blocks"),
            "guidance_embeds": guided in described.header.tensors,
            "num_mode": modes[0] if modes else None,
            "conditioning_embedding_channels": hint[0] if hint else None,
        }

    def control(self, network: FluxControlNet, target: ControlTarget) -> FluxControl:
        return FluxControl(network, target)


KIND = FluxControlKind()
