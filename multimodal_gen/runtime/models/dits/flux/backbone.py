"""Everything of FLUX but its modulation: shared with models made from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.emphasis import emphasis_of
from multimodal_gen.runtime.layers.joint_stream import BlockContext
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.modulation import modulated_norm
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.rope import Grid, RotaryTables, check_table, rotary_table
from multimodal_gen.runtime.models.dits.after_block import AfterBlock
from multimodal_gen.runtime.models.dits.flux.blocks import FluxDoubleBlock, FluxSingleBlock
from multimodal_gen.runtime.models.dits.flux.config import BackboneConfig

OUT_VECTORS = 2
"""Modulation vectors of the last norm."""


class FluxBackbone(nn.Module):
    """Text and image are two streams with separate weights in the first blocks, and one stream in
    the others; attention is always joint. The tokens of an input image follow those of the
    output."""

    def __init__(
        self, config: BackboneConfig, parts: Parts, rotary_scale: float | None = None
    ) -> None:
        """`rotary_scale`: factor of the rotary table, for texts with emphasis."""
        super().__init__()
        self._rotary_scale = rotary_scale
        self.sequence = parts.sequence
        self._doubles, self._axes = config.num_layers, config.axes_dims_rope
        self._head_dim = config.attention_head_dim
        dim = config.inner_dim
        self.x_embedder = parts.linear(config.in_channels, dim)
        self.context_embedder = parts.linear(config.joint_attention_dim, dim)
        doubles = [FluxDoubleBlock(config, parts) for _ in range(config.num_layers)]
        singles = [FluxSingleBlock(config, parts) for _ in range(config.num_single_layers)]
        self._blocks: list[FluxDoubleBlock | FluxSingleBlock] = [*doubles, *singles]
        self.blocks = nn.ModuleList(self._blocks)
        self.proj_out = parts.linear(dim, config.token_channels)
        self._rotary_tables = RotaryTables[Tensor]()

    def denoise(
        self,
        given: Sequence[Tensor],
        encoder_hidden_states: Tensor,
        vectors: Sequence[Sequence[Tensor]],
        rotary: Tensor,
        lora: LoraRows | None,
        emphasis: Tensor | None = None,
        after: AfterBlock | None = None,
    ) -> Tensor:
        """Velocity [B, S_img, out] for packed latents [B, S_img, C] and those of an input image.

        `vectors`, each [B, 1, dim], are scale and shift of the last norm, then those of each block;
        1 has been added to the scales. `emphasis` [B, S_txt] is that of texts: see `Emphasised`;
        `after` is given the tokens of the latents.
        """
        streams = (encoder_hidden_states.shape[1], *(tokens.shape[1] for tokens in given))
        (scale, shift), *others = vectors
        shares = [self.sequence.shard(tokens) for tokens in given]
        image = self.x_embedder(torch.cat(shares, dim=1), lora)  # [B, S_img + S_pic, dim]
        text = self.context_embedder(self.sequence.shard(encoder_hidden_states), lora)
        check_table(rotary, image.shape[1] + text.shape[1])
        if emphasis is not None:
            emphasis = F.pad(self.sequence.shard(emphasis), (0, image.shape[1]), value=1)
            emphasis = emphasis_of(emphasis, self._head_dim)
        context = BlockContext(rotary, streams, lora=lora, emphasis=emphasis)

        image = self.run(image, text, others, context, shares[0].shape[1], after)
        velocity: Tensor = self.proj_out(modulated_norm(image, shift, scale), lora)
        return self.sequence.gather(velocity, streams[1])

    def run(
        self,
        image: Tensor,
        text: Tensor,
        vectors: Sequence[Sequence[Tensor]],
        context: BlockContext,
        tokens: int,
        after: AfterBlock | None = None,
    ) -> Tensor:
        """Run the blocks on this rank's tokens of both streams, [B, S_local, dim]; returns the
        first `tokens` of the image's, which `after` is given as well."""
        doubles = self._doubles
        for number, block in enumerate(self.blocks[:doubles]):
            image, text = block(image, text, vectors[number], context)
            if after is not None:
                after(number, image[:, :tokens])
        joint = torch.cat((text, image), dim=1)  # [B, S, dim]
        for number, block in enumerate(self.blocks[doubles:], doubles):
            joint = block(joint, vectors[number], context)
            if after is not None:
                after(number, joint.narrow(1, text.shape[1], tokens))
        return joint.narrow(1, text.shape[1], tokens)

    def rotary(self, text: int, grids: Sequence[Grid]) -> Tensor:
        """Rotary table of this rank, [1, S_local, head_dim / 2, 2]: of `text` tokens, the image on
        `grids[0]` (h, w), and an input image on `grids[1]`."""
        device = self.x_embedder.device

        def make() -> Tensor:
            positions = _positions(text, grids, device)
            shares = [self.sequence.shard(each, 0) for each in positions]
            table = rotary_table(torch.cat(shares)[None], self._axes)
            return table if self._rotary_scale is None else table * self._rotary_scale

        return self._rotary_tables.get((text, tuple(grids), device), make)


def _positions(text: int, grids: Sequence[Grid], device: torch.device) -> list[Tensor]:
    """Image index, row and column of each token, [S, 3] per stream; the text is at the origin."""
    pictures = (
        torch.cartesian_prod(
            torch.full((1,), picture, device=device),
            torch.arange(height, device=device),
            torch.arange(width, device=device),
        )
        for picture, (height, width) in enumerate(grids)
    )
    return [torch.zeros(text, 3, device=device), *pictures]
