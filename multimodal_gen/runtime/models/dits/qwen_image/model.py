"""The Qwen-Image transformer (arXiv:2508.02324), after diffusers' QwenImageTransformer2DModel.

Text and image are two streams with separate weights and joint attention in every block. The tokens
of an input image follow those of the output, and share its weights. In the joint sequence the text
is last, so that its padding is at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.embedding import EmbeddingMLP, sinusoidal_embedding
from multimodal_gen.runtime.layers.joint_stream import (
    BlockContext,
    JointStream,
    StreamInput,
    joint_block,
    within_fp16,
)
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.modulation import modulated_norm
from multimodal_gen.runtime.layers.norm import RMSNorm
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.rope import Grid, RotaryTables, check_table, rotary_table
from multimodal_gen.runtime.models.dits.after_block import AfterBlock, Residuals, adding
from multimodal_gen.runtime.models.dits.qwen_image.config import QwenImageConfig

_VECTORS = 6  # modulation vectors per stream and block


class QwenImageTransformer(nn.Module):
    """Predicts the flow's velocity. Create it on the meta device; fill it with
    `qwen_image_key_map`."""

    keep_exact: ClassVar = ("*_embedder*", "*modulation", "proj_out")

    def __init__(self, config: QwenImageConfig, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.sequence = parts.sequence
        dim = config.inner_dim
        self.x_embedder = parts.linear(config.in_channels, dim)
        self.context_norm = RMSNorm(config.joint_attention_dim, 1e-6)
        self.context_embedder = parts.linear(config.joint_attention_dim, dim)
        self.time_embedder = EmbeddingMLP(parts, 256, dim)
        blocks = [QwenImageBlock(config, parts) for _ in range(config.num_layers)]
        self.blocks = nn.ModuleList(blocks)
        self._modulations = [
            layer for block in blocks for layer in (block.image_modulation, block.text_modulation)
        ]
        self.out_modulation = parts.linear(dim, 2 * dim)
        self.proj_out = parts.linear(dim, config.token_channels)
        self._rotary_tables: RotaryTables[Tensor] = RotaryTables()

    @property
    def layers_ahead(self) -> Sequence[nn.Module]:
        """Layers of blocks that run before the first block."""
        return self._modulations

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        timestep: Tensor,
        rotary: Tensor,
        picture: Tensor | None = None,
        lengths: Tensor | None = None,
        control: Residuals | None = None,
        lora: LoraRows | None = None,
    ) -> Tensor:
        """Velocity [B, S, out] for packed latents [B, S, C].

        `encoder_hidden_states` is [B, T, D], of which the first `lengths` [B] per row are text
        (None: all); `timestep` [B] in 0..1; `rotary` the result of `rotary` for these tokens;
        `picture` [B, P, C] the packed latents of the input images; `control` is added to the
        output's tokens.
        """
        given = (hidden_states,) if picture is None else (hidden_states, picture)
        shares = [self.sequence.shard(tokens) for tokens in given]
        streams = (*(tokens.shape[1] for tokens in given), encoder_hidden_states.shape[1])
        if lengths is not None:
            lengths = lengths + sum(streams[:-1])

        context = BlockContext(rotary, streams, lengths, lora)
        image = self.x_embedder(torch.cat(shares, dim=1), lora)  # [B, S_local, dim]
        text = self.context_norm(self.sequence.shard(encoder_hidden_states), lora)
        text = self.context_embedder(text, lora)
        check_table(rotary, image.shape[1] + text.shape[1])
        counts = [tokens.shape[1] for tokens in shares]
        moments, moment_of = self._moments(timestep, counts, lora)
        after = adding(control)
        image = self.run(image, text, moments, moment_of, context, counts[0], after)
        scale, shift = self.out_modulation(moments[:, :1], lora).chunk(2, dim=-1)
        image = self.proj_out(modulated_norm(image, shift, scale + 1), lora)
        return self.sequence.gather(image, streams[0])

    def run(
        self,
        image: Tensor,
        text: Tensor,
        moments: Tensor,
        moment_of: Tensor | None,
        context: BlockContext,
        tokens: int,
        after: AfterBlock | None = None,
    ) -> Tensor:
        """Run the blocks on this rank's tokens of both streams, [B, S_local, dim]; returns the
        first `tokens` of the image's, which `after` is given as well. The moments are those of
        `_moments`."""
        vectors = self._vectors(moments, context.lora)
        for i, block in enumerate(self.blocks):
            of_image, of_text = vectors[2 * i], [vector[:, :1] for vector in vectors[2 * i + 1]]
            if moment_of is not None:
                of_image = [vector[:, moment_of] for vector in of_image]
            image, text = block(image, text, of_image, of_text, context)
            if after is not None:
                after(i, image[:, :tokens])
        return image[:, :tokens]

    def _moments(
        self, timestep: Tensor, counts: Sequence[int], lora: LoraRows | None
    ) -> tuple[Tensor, Tensor | None]:
        """Embedded timestep for the modulation, [B, 1, dim], and no index.

        A model that modulates an input image's tokens at timestep 0 gets both, [B, 2, dim], and the
        index to use per image token of this rank, [S_local]. `counts` are the token counts of the
        output and of the input images.
        """
        moments, moment_of = timestep[:, None], None
        if self.config.zero_cond_t and len(counts) > 1:
            moments = F.pad(moments, (0, 1))
            moment_of = torch.arange(sum(counts), device=timestep.device).ge(counts[0]).long()
        dtype = self.x_embedder.dtype
        embedded = sinusoidal_embedding(moments.flatten().to(dtype), scale=1000)
        hidden: Tensor = F.silu(self.time_embedder(embedded.to(dtype), lora))
        return hidden.view(*moments.shape, -1), moment_of

    def _vectors(self, moments: Tensor, lora: LoraRows | None) -> list[Sequence[Tensor]]:
        """Shift, scale and gate, twice, of each block's image, then its text, all [B, K, dim], for
        moments [B, K, dim]. Ranks that share the sequence share the layers that make them."""
        layers = self._modulations
        own = self.sequence.share(len(layers))
        made = [layer(moments, lora) for layer in layers[own.start : own.stop]]
        width = _VECTORS * self.config.inner_dim
        local = torch.stack(made) if made else moments.new_empty(0, *moments.shape[:2], width)
        vectors = self.sequence.gather(local, len(layers), 0).unflatten(-1, (_VECTORS, -1))
        vectors[..., 1::3, :].add_(1)
        return [of_layer.unbind(2) for of_layer in vectors.unbind(0)]

    def rotary(self, text: int, grids: Sequence[Grid]) -> Tensor:
        """Rotary table of this rank, [1, S_local, head_dim / 2, 2]: of the image on `grids[0]` (h,
        w), input images on the others, and `text` tokens."""
        device = self.x_embedder.device

        def make() -> Tensor:
            image, *pictures = (height * width for height, width in grids)
            streams = (image, *((sum(pictures),) if pictures else ()), text)
            whole = positions_of(grids, text, device).split_with_sizes(streams)
            shares = [self.sequence.shard(stream, 0) for stream in whole]
            return rotary_table(torch.cat(shares)[None], self.config.axes_dims_rope)

        return self._rotary_tables.get((text, tuple(grids), device), make)


class QwenImageBlock(nn.Module):
    """Text and image with separate weights and joint attention."""

    def __init__(self, config: QwenImageConfig, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        dim = config.inner_dim
        self.image_modulation = parts.linear(dim, _VECTORS * dim)
        self.text_modulation = parts.linear(dim, _VECTORS * dim)
        self.image = JointStream(parts, dim, config.num_attention_heads, config.mlp_dim)
        self.text = JointStream(parts, dim, config.num_attention_heads, config.mlp_dim)

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        of_image: Sequence[Tensor],
        of_text: Sequence[Tensor],
        context: BlockContext,
    ) -> tuple[Tensor, Tensor]:
        inputs = (
            StreamInput(self.image, image, of_image),
            StreamInput(self.text, text, of_text),
        )
        image, text = joint_block(self.parts, inputs, context)
        return within_fp16(image), within_fp16(text)


def positions_of(grids: Sequence[Grid], text: int, device: torch.device) -> Tensor:
    """Frame, row and column of each token, [S, 3]: images are centred on 0, one per frame; the text
    continues along the diagonal from the end of the largest."""
    pictures = [
        torch.cartesian_prod(
            torch.full((1,), frame, device=device),
            torch.arange(height, device=device) - (height - height // 2),
            torch.arange(width, device=device) - (width - width // 2),
        )
        for frame, (height, width) in enumerate(grids)
    ]
    start = max(side // 2 for grid in grids for side in grid)
    diagonal = torch.arange(start, start + text, device=device)
    return torch.cat((*pictures, diagonal[:, None].expand(-1, 3)))
