"""ControlNet for FLUX.1, after diffusers' FluxControlNetModel.

It is a FLUX transformer of a few blocks without an end. A picture is added to its image tokens, and
what leaves each block passes a linear layer. A union of several kinds of control has a token for
each, before the text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from torch import Tensor, nn

from multimodal_gen.runtime.layers.joint_stream import BlockContext
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.models.dits.flux.config import FluxConfig
from multimodal_gen.runtime.models.dits.flux.keys import flux_key_map
from multimodal_gen.runtime.models.dits.flux.model import FluxTransformer
from multimodal_gen.runtime.models.dits.keys import Modules, parameters
from multimodal_gen.runtime.models.dits.stable_diffusion_3.model import patches_of

PATCH = 2
_HINT_WIDTHS = (16, 16, 16, 16)


@dataclass(frozen=True)
class FluxControlConfig(FluxConfig):
    """The fields and defaults of diffusers' FluxControlNetModel."""

    title: ClassVar = "FLUX ControlNet"
    smallest: ClassVar = {
        **FluxConfig.smallest,
        "num_mode": 1,
        "conditioning_embedding_channels": 1,
    }

    num_mode: int | None = None
    """Kinds of control that a union has."""
    conditioning_embedding_channels: int | None = None
    """Channels made of the picture's pixels; null where the picture is encoded by the VAE."""

    def check(self) -> None:
        super().check()
        channels = self.conditioning_embedding_channels
        if channels is not None and PATCH**2 * channels != self.in_channels:
            allowed = f"in_channels / {PATCH**2} = {self.in_channels / PATCH**2:g}, or null"
            raise self.invalid("conditioning_embedding_channels", allowed)


class FluxControlNet(FluxTransformer):
    """Create it on the meta device; fill it with `flux_control_key_map`."""

    first_scale: ClassVar = 1
    config: FluxControlConfig

    def __init__(self, config: FluxControlConfig, parts: Parts) -> None:
        super().__init__(config, parts)
        del self.proj_out, self.out_modulation
        self._modulations, self._vectors = self._modulations[1:], self._vectors[1:]
        dim = config.inner_dim
        self.control_embedder = parts.linear(config.in_channels, dim)
        self.outputs = nn.ModuleList(parts.linear(dim, dim) for _ in self.blocks)
        modes, channels = config.num_mode, config.conditioning_embedding_channels
        self.modes = nn.Parameter(torch.empty(modes, dim)) if modes else None
        self.hint = ControlNetConditioningEmbedding(channels, 3, _HINT_WIDTHS) if channels else None

    def residuals(
        self,
        hidden_states: Tensor,
        picture: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        guidance: Tensor | None = None,
        mode: Tensor | None = None,
    ) -> list[Tensor]:
        """This rank's part of what leaves each block, [B, S_local, dim].

        `picture` [B, C, 2h, 2w] are latents, or the result of `hint`; `mode` int64 [B] the kinds
        of control, only for a union. The others are as for the transformer.
        """
        grid = (picture.shape[2] // PATCH, picture.shape[3] // PATCH)
        vectors = self._modulate(timestep, guidance, pooled_projections, None)
        shared = self.sequence.shard(patches_of(picture, PATCH))
        image = self.x_embedder(self.sequence.shard(hidden_states))
        image = image + self.control_embedder(shared)
        text = self.context_embedder(encoder_hidden_states)  # of all tokens: there are few
        if self.modes is not None:
            if mode is None:
                raise ValueError("this network needs a mode [B]")
            text = torch.cat((self.modes[mode].unsqueeze(1), text), dim=1)
        streams = (text.shape[1], hidden_states.shape[1])
        context = BlockContext(self.rotary(streams[0], (grid,)), streams)
        found: list[Tensor] = []

        def take(number: int, tokens: Tensor) -> None:
            found.append(self.outputs[number](tokens))

        self.run(image, self.sequence.shard(text), vectors, context, image.shape[1], take)
        return found

    def spread(self, found: Sequence[Tensor], doubles: int, singles: int) -> list[Tensor | None]:
        """Return what is added after each block of a transformer with so many, given the outputs of
        the blocks of this one."""
        own = self.config.num_layers
        first = spread(found[:own], doubles, repeated=self.hint is not None)
        return [*first, *spread(found[own:], singles)]


def spread(found: Sequence[Tensor], blocks: int, *, repeated: bool = False) -> list[Tensor | None]:
    """Deal tensors out to so many blocks: each to several in a row, or in turns if `repeated`."""
    if not found:
        return [None] * blocks
    if repeated:
        return [found[i % len(found)] for i in range(blocks)]
    each = math.ceil(blocks / len(found))
    return [found[i // each] for i in range(blocks)]


def flux_control_key_map(config: FluxControlConfig) -> Mapping[str, tuple[str, ...]]:
    """Map our parameters' names to diffusers' names."""
    head = ("proj_out.", "out_modulation.")
    found = {ours: of for ours, of in flux_key_map(config).items() if not ours.startswith(head)}
    layers: Modules = {"control_embedder": ("controlnet_x_embedder",)}
    for i in range(config.num_layers):
        layers[f"outputs.{i}"] = (f"controlnet_blocks.{i}",)
    for i in range(config.num_single_layers):
        layers[f"outputs.{config.num_layers + i}"] = (f"controlnet_single_blocks.{i}",)
    if config.conditioning_embedding_channels:
        inner = [f"blocks.{i}" for i in range(2 * len(_HINT_WIDTHS) - 2)]
        for name in ("conv_in", *inner, "conv_out"):
            layers[f"hint.{name}"] = (f"input_hint_block.{name}",)
    modes: Modules = {"modes": ("controlnet_mode_embedder.weight",)} if config.num_mode else {}
    return found | parameters(layers, {}) | modes
