"""ControlNet for Z-Image, after diffusers' ZImageControlNetModel.

Its blocks are a second stream of tokens beside that of the model that is steered, whose embedders
and refiners it uses. What leaves each block passes a linear layer, and is added to the tokens after
a block of the model. Some also steer the refiners of the image that their own first block sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.layers.joint_stream import BlockContext
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.models.dits.after_block import adding
from multimodal_gen.runtime.models.dits.keys import Modules, parameters
from multimodal_gen.runtime.models.dits.z_image.config import PATCH, ZImageConfig
from multimodal_gen.runtime.models.dits.z_image.keys import block_key_map
from multimodal_gen.runtime.models.dits.z_image.model import (
    Embedded,
    ZImageBlock,
    ZImageTransformer,
    modulate,
    patchify,
)

_REFINERS = (None, "control_layers", "control_noise_refiner")


@dataclass(frozen=True)
class ZImageControlConfig(ZImageConfig):
    """The fields and defaults of diffusers' ZImageControlNetModel."""

    title: ClassVar = "Z-Image ControlNet"

    control_layers_places: tuple[int, ...] = ()
    """Blocks of the model after which something is added."""
    control_refiner_layers_places: tuple[int, ...] = ()
    """The same for the refiners of the image that is seen here."""
    control_in_dim: int = 16
    """Channels of the picture's latents; further ones than the model's are for inpainting, else
    0."""
    add_control_noise_refiner: str | None = None
    """The blocks that steer refiners; null: the refiners here are those of the picture."""

    def check(self) -> None:
        super().check()
        for name in ("control_layers_places", "control_refiner_layers_places"):
            places = getattr(self, name) or ()
            if not all(isinstance(place, int) and place >= 0 for place in places):
                raise self.invalid(name, "a list of layers")
        if 0 not in self.control_layers_places:
            raise self.invalid("control_layers_places", "a list of layers with 0")
        if self.add_control_noise_refiner not in _REFINERS:
            allowed = "null, 'control_layers' or 'control_noise_refiner'"
            raise self.invalid("add_control_noise_refiner", allowed)


class ZImageControlNet(nn.Module):
    """Create it on the meta device; fill it with `z_image_control_key_map`."""

    keep_exact: ClassVar = ("*_embedder*", "*modulation")

    def __init__(self, config: ZImageControlConfig, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.control_embedder = parts.linear(PATCH**2 * config.control_in_dim, config.dim)
        steers = config.add_control_noise_refiner
        self.ignored = ("control_noise_refiner",) if steers == "control_layers" else ()
        refiners = 0 if steers == "control_layers" else config.n_refiner_layers
        self.refiners = nn.ModuleList(
            SteeringBlock(config, parts, first=i == 0)
            if steers
            else ZImageBlock(config, parts, modulated=True)
            for i in range(refiners)
        )
        places = config.control_layers_places
        self.blocks = nn.ModuleList(SteeringBlock(config, parts, first=i == 0) for i in places)

    def residuals(
        self,
        model: ZImageTransformer,
        latents: Tensor,
        picture: Tensor,
        scale: Tensor,
        text: Tensor,
        text_tokens: int,
        timestep: Tensor,
        rotary: Tensor,
        lengths: Tensor | None = None,
        lora: LoraRows | None = None,
    ) -> list[Tensor | None]:
        """This rank's part of what is added after each block of `model`, the transformer that is
        steered; [B, S_local, dim], times `scale` [B].

        `picture` [B, control_in_dim, h, w] are latents; the others are as for the model.
        """
        given = model.embed(latents, text, text_tokens, timestep, rotary, lengths, lora)
        patches = patchify(picture)
        control = self.control_embedder(model.share(patches, given.whole.streams[0]))
        control = model.pad_image(control, patches.shape[1])
        scale = scale.to(latents.dtype).view(-1, 1, 1)
        refining: dict[int, Tensor] = {}
        if self.config.add_control_noise_refiner is None:
            modulation = self._modulation(self.refiners, given)
            for block, vectors in zip(self.refiners, modulation, strict=True):
                control = block(control, given.of_image, vectors)
        else:
            blocks = self.refiners or self.blocks
            control, hints = self._steer(blocks, control, given.image, given.of_image, given)
            places = self.config.control_refiner_layers_places
            refining = {at: hint * scale for at, hint in zip(places, hints, strict=False)}
        joint = model.refine(
            given,
            modulate(model.refiner_modulations, given.time, self.config.dim, lora),
            adding([refining.get(i) for i in range(model.config.n_refiner_layers)]),
        )
        control = torch.cat((control, joint[:, control.shape[1] :]), dim=1)
        _, hints = self._steer(self.blocks, control, joint, given.whole, given)
        found: list[Tensor | None] = [None] * model.config.n_layers
        for place, hint in zip(self.config.control_layers_places, hints, strict=True):
            found[place] = hint * scale
        return found

    def _steer(
        self,
        blocks: nn.ModuleList,
        control: Tensor,
        seen: Tensor,
        context: BlockContext,
        given: Embedded,
    ) -> tuple[Tensor, list[Tensor]]:
        """The picture's tokens after these blocks, of which the first sees the model's, and what
        each of them adds to the model's, all [B, S_local, dim]."""
        own, hints = context._replace(lora=None), []
        modulation = self._modulation(blocks, given)
        for block, vectors in zip(blocks, modulation, strict=True):
            control, hint = block(control, seen, own, vectors)
            hints.append(hint)
        return control, hints

    def _modulation(self, blocks: nn.ModuleList, given: Embedded) -> list[Sequence[Tensor]]:
        layers: list[Any] = [block.modulation for block in blocks]
        return modulate(layers, given.time, self.config.dim, None)


class SteeringBlock(ZImageBlock):
    """A block of the control stream, and what it adds to the model's."""

    def __init__(self, config: ZImageControlConfig, parts: Parts, *, first: bool) -> None:
        """`first`: it sees the model's tokens, too."""
        super().__init__(config, parts, modulated=True)
        dim = config.dim
        self.proj_in = parts.linear(dim, dim) if first else None
        self.output = parts.linear(dim, dim)

    def forward(  # type: ignore[override]  # two results
        self, control: Tensor, seen: Tensor, context: BlockContext, modulation: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        if self.proj_in is not None:
            control = self.proj_in(control) + seen
        control = super().forward(control, context, modulation)
        return control, self.output(control)


def z_image_control_key_map(config: ZImageControlConfig) -> Mapping[str, tuple[str, ...]]:
    """Map our parameters' names to diffusers' names."""
    layers: Modules = {"control_embedder": (f"control_all_x_embedder.{PATCH}-1",)}
    found: Modules = {}
    steers = config.add_control_noise_refiner

    def add(ours: str, theirs: str, *, first: bool, controls: bool) -> None:
        found.update(block_key_map(ours, theirs, qk_norm=config.qk_norm))
        layers[f"{ours}.modulation"] = (f"{theirs}.adaLN_modulation.0",)
        if controls:
            layers[f"{ours}.output"] = (f"{theirs}.after_proj",)
        if controls and first:
            layers[f"{ours}.proj_in"] = (f"{theirs}.before_proj",)

    for i, place in enumerate(config.control_layers_places):
        add(f"blocks.{i}", f"control_layers.{i}", first=place == 0, controls=True)
    if steers != "control_layers":
        for i in range(config.n_refiner_layers):
            name, controls = f"control_noise_refiner.{i}", steers is not None
            add(f"refiners.{i}", name, first=i == 0, controls=controls)
    return found | parameters(layers, {})
