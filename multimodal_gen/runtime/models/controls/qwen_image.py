"""ControlNet for Qwen-Image, after diffusers' QwenImageControlNetModel.

It is a Qwen-Image transformer of a few blocks without an end. A picture is added to its image
tokens; what leaves each block passes a linear layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from multimodal_gen.runtime.layers.joint_stream import BlockContext
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.models.controls.flux import PATCH
from multimodal_gen.runtime.models.dits.keys import Modules, parameters
from multimodal_gen.runtime.models.dits.qwen_image.config import QwenImageConfig
from multimodal_gen.runtime.models.dits.qwen_image.keys import qwen_image_key_map
from multimodal_gen.runtime.models.dits.qwen_image.model import QwenImageTransformer
from multimodal_gen.runtime.models.dits.stable_diffusion_3.model import patches_of


@dataclass(frozen=True)
class QwenImageControlConfig(QwenImageConfig):
    """The fields and defaults of diffusers' QwenImageControlNetModel."""

    title: ClassVar = "Qwen-Image ControlNet"

    extra_condition_channels: int = 0
    """Must be 0: others are for inpainting."""

    def check(self) -> None:
        super().check()
        if self.extra_condition_channels:
            allowed = "0: ControlNets for inpainting are not supported"
            raise self.invalid("extra_condition_channels", allowed)


class QwenImageControlNet(QwenImageTransformer):
    """Create it on the meta device; fill it with `qwen_image_control_key_map`."""

    config: QwenImageControlConfig

    def __init__(self, config: QwenImageControlConfig, parts: Parts) -> None:
        super().__init__(config, parts)
        del self.proj_out, self.out_modulation
        dim = config.inner_dim
        self.control_embedder = parts.linear(config.in_channels, dim)
        self.outputs = nn.ModuleList(parts.linear(dim, dim) for _ in self.blocks)

    def residuals(
        self,
        hidden_states: Tensor,
        picture: Tensor,
        encoder_hidden_states: Tensor,
        timestep: Tensor,
        lengths: Tensor | None = None,
    ) -> list[Tensor]:
        """This rank's part of what leaves each block, [B, S_local, dim].

        `picture` [B, C, 2h, 2w] are latents; the others are as for the transformer.
        """
        grid = (picture.shape[2] // PATCH, picture.shape[3] // PATCH)
        streams = (hidden_states.shape[1], encoder_hidden_states.shape[1])
        image = self.x_embedder(self.sequence.shard(hidden_states))
        patches = self.sequence.shard(patches_of(picture, PATCH))
        image = image + self.control_embedder(patches)
        text = self.context_norm(self.sequence.shard(encoder_hidden_states))
        ends = None if lengths is None else lengths + streams[0]
        context = BlockContext(self.rotary(streams[1], (grid,)), streams, ends)
        moments, _ = self._moments(timestep, [image.shape[1]], None)
        found: list[Tensor] = []

        def take(number: int, tokens: Tensor) -> None:
            found.append(self.outputs[number](tokens))

        text = self.context_embedder(text)
        self.run(image, text, moments, None, context, image.shape[1], take)
        return found


def qwen_image_control_key_map(
    config: QwenImageControlConfig,
) -> Mapping[str, tuple[str, ...]]:
    """Map our parameters' names to diffusers' names."""
    head = ("proj_out.", "out_modulation.")
    own = {ours: of for ours, of in qwen_image_key_map(config).items() if not ours.startswith(head)}
    layers: Modules = {"control_embedder": ("controlnet_x_embedder",)}
    layers |= {f"outputs.{i}": (f"controlnet_blocks.{i}",) for i in range(config.num_layers)}
    return own | parameters(layers, {})
