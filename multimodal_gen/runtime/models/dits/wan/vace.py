"""The Wan VACE transformer, after diffusers' WanVACETransformer3DModel.

Control blocks are a second stream of tokens, made from a control video, masks and reference images.
Before some of the blocks one of them runs; a projection of its tokens is added after that block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.layers.joint_stream import BlockContext
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.models.dits.wan.config import WanVaceConfig
from multimodal_gen.runtime.models.dits.wan.model import (
    SharedInputs,
    WanBlock,
    WanTransformer,
    patchify,
)


class WanVaceTransformer(WanTransformer):
    """Predicts the flow's velocity. Create it on the meta device; fill it with
    `wan_vace_key_map`."""

    config: WanVaceConfig

    def __init__(self, config: WanVaceConfig, parts: Parts) -> None:
        super().__init__(config, parts)
        dim = config.inner_dim
        self.control_embedding = parts.patches(config.vace_in_channels, dim, config.patch_size)

    def make_blocks(self, parts: Parts) -> Sequence[nn.Module]:
        return [
            WanBlock(self.config, parts)
            if layer is not None
            else ControlBlock(self.config, parts, first=number == 0)
            for number, layer in enumerate(self.config.block_order)
        ]

    def run(
        self,
        x: Tensor,
        shared: SharedInputs,
        control: Tensor | None,
        control_scale: Tensor | None,
    ) -> Tensor:
        assert control is not None
        assert control_scale is not None
        tokens = self.sequence.shard(patchify(control, self.config.patch_size))
        steering, hint = self.control_embedding(tokens, shared[-1].lora), None
        scale = control_scale[:, None, None].to(x.dtype)
        for block in self.blocks:
            if isinstance(block, ControlBlock):
                steering, hint = block(steering, x, *shared)
                continue
            x = block(x, *shared)
            if hint is not None:
                x, hint = torch.addcmul(x, hint, scale), None
        return x


class ControlBlock(nn.Module):
    """A block of the control stream, and what it adds to the video's."""

    def __init__(self, config: WanVaceConfig, parts: Parts, *, first: bool) -> None:
        """`first`: it sees the video's tokens, too."""
        super().__init__()
        dim = config.inner_dim
        self.block = WanBlock(config, parts)
        self.proj_in = parts.linear(dim, dim) if first else None
        self.proj_out = parts.linear(dim, dim)

    def forward(
        self,
        steering: Tensor,
        x: Tensor,
        seen: tuple[Tensor, Tensor | None],
        vectors: Tensor,
        counts: list[int],
        context: BlockContext,
    ) -> tuple[Tensor, Tensor]:
        """The control stream's tokens after the block, and what is added to the video's x, all [B,
        S_local, dim]; other inputs are as for `WanBlock`."""
        if self.proj_in is not None:
            steering = self.proj_in(steering, context.lora) + x
        steering = self.block(steering, seen, vectors, counts, context)
        return steering, self.proj_out(steering, context.lora)
