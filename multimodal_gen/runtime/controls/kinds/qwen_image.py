"""ControlNets for Qwen-Image; a union takes pictures of any of its kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch.nn.utils.rnn import pad_sequence

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
from multimodal_gen.runtime.distributed.device_copies import tensor_of
from multimodal_gen.runtime.models.controls.flux import spread
from multimodal_gen.runtime.models.controls.qwen_image import (
    QwenImageControlConfig,
    QwenImageControlNet,
    qwen_image_control_key_map,
)

_TEXT = "encoder_hidden_states"


class QwenImageControl(ResidualControl):
    """Runs the network on its rows, whose text is the prompt also where that of the row is the
    negative one, as in the library."""

    def __init__(self, network: QwenImageControlNet, target: ControlTarget) -> None:
        super().__init__(network)
        self._dtype, self._blocks = target.context.dtype, target.config["num_layers"]

    def prepared(self, picture: ControlPicture) -> Mapping[str, Told]:
        shown = picture.latents(drawn=True).to(self._dtype)
        told = {"picture": shown, _TEXT: picture.conditioning["positive"][_TEXT]}
        return dict.fromkeys(picture.branches, told)

    def joined(self, told: Sequence[Told]) -> Told:
        """Texts are padded to the longest; `lengths` are those that were."""
        texts = [each[_TEXT][0] for each in told]
        lengths = [len(text) for text in texts]
        joined = super().joined([{"picture": each["picture"]} for each in told])
        joined[_TEXT] = pad_sequence(texts, batch_first=True)
        if len(set(lengths)) > 1:
            joined["lengths"] = tensor_of(lengths, texts[0].device, torch.int32)
        return joined

    def residuals(self, call: ControlCall) -> Added:
        given = {name: call.tensors[name] for name in ("hidden_states", "timestep")}
        found = scaled(self.module.residuals(**given, **call.told), call.scale)
        return {"control": spread(found, self._blocks)}


class QwenImageControlKind(TransformerKind[QwenImageControlConfig]):
    class_name = "QwenImageControlNetModel"
    own_tensors = (
        "controlnet_blocks.0.weight",
        "controlnet_x_embedder.weight",
        "txt_norm.weight",
    )
    model_class = "QwenImageTransformer2DModel"
    model_title = "Qwen-Image"
    equal: ClassVar = (
        "in_channels",
        "attention_head_dim",
        "num_attention_heads",
        "joint_attention_dim",
    )
    config_class = QwenImageControlConfig
    make = QwenImageControlNet
    key_map = staticmethod(qwen_image_control_key_map)

    def found(self, described: ControlDescription, target: ControlTarget) -> dict[str, Any]:
        shown = described.shape("controlnet_x_embedder.weight")[1]
        return {
            "num_layers": count(described, "transformer_blocks"),
            "extra_condition_channels": shown - target.config["in_channels"],
        }

    def control(self, network: QwenImageControlNet, target: ControlTarget) -> QwenImageControl:
        return QwenImageControl(network, target)


KIND = QwenImageControlKind()
