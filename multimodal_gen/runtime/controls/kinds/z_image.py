"""ControlNets for Z-Image; a union takes pictures of any of its kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch.nn import functional as F

from multimodal_gen.runtime.controls.control import (
    Added,
    ControlCall,
    ControlDescription,
    ControlPicture,
    ControlTarget,
    ResidualControl,
    Told,
)
from multimodal_gen.runtime.controls.transformer_kind import TransformerKind, count
from multimodal_gen.runtime.loader.quantized.forms import open_weights
from multimodal_gen.runtime.models.controls.z_image import (
    ZImageControlConfig,
    ZImageControlNet,
    z_image_control_key_map,
)
from multimodal_gen.runtime.models.dits.z_image.config import PATCH

_EMBEDDER = f"control_all_x_embedder.{PATCH}-1.weight"
_SEES = "control_noise_refiner.0.before_proj.weight"


class ZImageControl(ResidualControl):
    """Runs the network on its rows."""

    def __init__(self, network: ZImageControlNet, target: ControlTarget) -> None:
        super().__init__(network)
        self._target = target

    def prepared(self, picture: ControlPicture) -> Mapping[str, Told]:
        """Channels beyond those of the picture's latents are for inpainting, and 0."""
        shown = picture.latents(drawn=False).to(self._target.context.dtype)
        more = self.module.config.control_in_dim - shown.shape[1]
        told = {"picture": F.pad(shown, (0, 0, 0, 0, 0, more))}
        return dict.fromkeys(picture.branches, told)

    def residuals(self, call: ControlCall) -> Added:
        model = self._target.modules["transformer"]
        found = self.module.residuals(
            model,
            **call.tensors,
            **call.static,
            **call.told,
            scale=call.scale,
            lora=call.lora,
        )
        return {"control": found}


class ZImageControlKind(TransformerKind[ZImageControlConfig]):
    class_name = "ZImageControlNetModel"
    own_tensors = (_EMBEDDER, "control_layers.0.after_proj.weight")
    model_class = "ZImageTransformer2DModel"
    model_title = "Z-Image"
    equal: ClassVar = ("dim", "n_heads", "n_refiner_layers")
    config_class = ZImageControlConfig
    make = ZImageControlNet
    key_map = staticmethod(z_image_control_key_map)

    def misfit(self, described: ControlDescription, target: ControlTarget) -> str | None:
        if (other := super().misfit(described, target)) is not None:
            return other
        config, layers = self.config(described, target), target.config["n_layers"]
        if (place := max(config.control_layers_places)) >= layers:
            return f"is a ControlNet for a Z-Image with more than {place} layers, not {layers}"
        return None

    def fields(self, described: ControlDescription, target: ControlTarget) -> dict[str, Any]:
        """The network's config lacks what it shares with the model."""
        return {**target.config, **super().fields(described, target)}

    def found(self, described: ControlDescription, target: ControlTarget) -> dict[str, Any]:
        """Config of a published file: its layers are for every second, fifth or tenth of the
        model's. Those whose refiners see nothing of the model use their layers in place of them."""
        layers, total = count(described, "control_layers"), target.config["n_layers"]
        shown = described.shape(_EMBEDDER)
        refiners = range(target.config["n_refiner_layers"])
        return {
            "control_layers_places": [i * (total // max(layers, 1)) for i in range(layers)],
            "control_refiner_layers_places": [*refiners],
            "control_in_dim": shown[1] // PATCH**2,
            "add_control_noise_refiner": self._steers(described),
        }

    @staticmethod
    def _steers(described: ControlDescription) -> str | None:
        if not count(described, "control_noise_refiner"):
            return "control_layers"
        if _SEES not in described.header.tensors:
            return None
        with open_weights([described.file.weights], described.file.name) as stored:
            weight = stored[_SEES]
            sees = weight.rows(0, weight.shape[0]).any()
        return "control_noise_refiner" if sees else "control_layers"

    def control(self, network: ZImageControlNet, target: ControlTarget) -> ZImageControl:
        return ZImageControl(network, target)


KIND = ZImageControlKind()
