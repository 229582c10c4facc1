"""The FLUX transformer, after black-forest-labs/flux and diffusers' FluxTransformer2DModel.

Text and image are two streams with separate weights in the first blocks, and one stream in the
others; attention is always joint. The tokens of an input image (Kontext) follow those of the
output. Every block is modulated by the timestep, the guidance and a pooled text embedding. One
matrix product here may be several tensors in a checkpoint: keys.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.layers.activation import gelu_tanh
from multimodal_gen.runtime.layers.embedding import EmbeddingMLP, sinusoidal_embedding
from multimodal_gen.runtime.layers.joint_stream import (
    BlockContext,
    JointStream,
    StreamInput,
    joint_block,
    start_attention,
    within_fp16,
)
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.modulation import (
    block_vectors,
    gated_add,
    modulated_norm,
    split_vectors,
)
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.rope import Grid, RotaryTables, check_table, rotary_table
from multimodal_gen.runtime.models.dits.flux.config import FluxConfig

_OUT = 2  # modulation vectors of the last norm


class FluxTransformer(nn.Module):
    """Predicts the flow's velocity. Create it on the meta device; fill it with `flux_key_map`."""

    keep_exact: ClassVar = ("*_embedder*", "*modulation", "proj_out")

    def __init__(self, config: FluxConfig, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.sequence = parts.sequence
        dim = config.inner_dim
        self.x_embedder = parts.linear(config.in_channels, dim)
        self.context_embedder = parts.linear(config.joint_attention_dim, dim)
        self.time_embedder = EmbeddingMLP(parts, 256, dim)
        self.guidance_embedder = EmbeddingMLP(parts, 256, dim) if config.guidance_embeds else None
        self.text_embedder = EmbeddingMLP(parts, config.pooled_projection_dim, dim)
        doubles = [FluxDoubleBlock(config, parts) for _ in range(config.num_layers)]
        singles = [FluxSingleBlock(config, parts) for _ in range(config.num_single_layers)]
        blocks: list[FluxDoubleBlock | FluxSingleBlock] = [*doubles, *singles]
        self.blocks = nn.ModuleList(blocks)
        self.out_modulation = parts.linear(dim, _OUT * dim)
        self._modulations = [self.out_modulation, *(block.modulation for block in blocks)]
        self._vectors = [_OUT, *(block.vectors for block in blocks)]
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
        pooled_projections: Tensor,
        timestep: Tensor,
        rotary: Tensor,
        guidance: Tensor | None = None,
        picture: Tensor | None = None,
        lora: LoraRows | None = None,
    ) -> Tensor:
        """Velocity [B, S_img, out] for packed latents [B, S_img, C].

        `encoder_hidden_states` is [B, S_txt, D], `pooled_projections` [B, P], `timestep` [B] in
        0..1, `rotary` the result of `rotary` for these tokens, `guidance` [B], only for a model
        with `guidance_embeds`; `picture` [B, S_pic, C] the packed latents of an input image.
        """
        given = (hidden_states,) if picture is None else (hidden_states, picture)
        streams = (encoder_hidden_states.shape[1], *(tokens.shape[1] for tokens in given))
        context = BlockContext(rotary, streams, lora=lora)
        (scale, shift), *vectors = self._modulate(timestep, guidance, pooled_projections, lora)
        shares = [self.sequence.shard(tokens) for tokens in given]
        image = self.x_embedder(torch.cat(shares, dim=1), lora)  # [B, S_img + S_pic, dim]
        text = self.context_embedder(self.sequence.shard(encoder_hidden_states), lora)
        check_table(rotary, image.shape[1] + text.shape[1])

        doubles = self.config.num_layers
        for block, own in zip(self.blocks[:doubles], vectors[:doubles], strict=True):
            image, text = block(image, text, own, context)
        joint = torch.cat((text, image), dim=1)  # [B, S, dim]
        for block, own in zip(self.blocks[doubles:], vectors[doubles:], strict=True):
            joint = block(joint, own, context)
        image = joint.narrow(1, text.shape[1], shares[0].shape[1])
        image = modulated_norm(image, shift, scale)
        return self.sequence.gather(self.proj_out(image, lora), streams[1])

    def _modulate(
        self, timestep: Tensor, guidance: Tensor | None, pooled: Tensor, lora: LoraRows | None
    ) -> list[Sequence[Tensor]]:
        """Modulation vectors of an evaluation, each [B, 1, dim].

        Scale and shift of the last norm, then for each block shift, scale, gate (double blocks:
        image attention, image MLP, text attention, text MLP). So every third is a scale.
        """
        dtype, dim = pooled.dtype, self.config.inner_dim
        embedded = self._embed(self.time_embedder, timestep, dtype, lora)
        if self.guidance_embedder is not None:
            if guidance is None:
                raise ValueError("this model needs guidance [B]")
            embedded = embedded + self._embed(self.guidance_embedder, guidance, dtype, lora)
        embedded = nn.functional.silu(embedded + self.text_embedder(pooled, lora))
        vectors = block_vectors(self._modulations, embedded, dim, lora)
        vectors[:, ::3].add_(1)
        return split_vectors(vectors, self._vectors)

    @staticmethod
    def _embed(
        embedder: nn.Module, value: Tensor, dtype: torch.dtype, lora: LoraRows | None
    ) -> Tensor:
        # Times 1000 in the model's own dtype, including its rounding, as in the reference.
        embedded: Tensor = embedder(sinusoidal_embedding(value.to(dtype) * 1000).to(dtype), lora)
        return embedded

    def rotary(self, text: int, grids: Sequence[Grid]) -> Tensor:
        """Rotary table of this rank, [S_local, head_dim / 2, 2]: of `text` tokens, the image on
        `grids[0]` (h, w), and an input image on `grids[1]`."""
        device = self.x_embedder.device

        def make() -> Tensor:
            positions = _positions(text, grids, device)
            shares = [self.sequence.shard(each, 0) for each in positions]
            return rotary_table(torch.cat(shares), self.config.axes_dims_rope)

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


class FluxDoubleBlock(nn.Module):
    """Text and image with separate weights and joint attention."""

    vectors: ClassVar = 12
    """Modulation vectors: 6 for the image, 6 for the text."""

    def __init__(self, config: FluxConfig, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        dim = config.inner_dim
        self.modulation = parts.linear(dim, self.vectors * dim)
        self.image = JointStream(parts, dim, config.num_attention_heads, config.mlp_dim)
        self.text = JointStream(parts, dim, config.num_attention_heads, config.mlp_dim)

    def forward(
        self, image: Tensor, text: Tensor, modulation: Sequence[Tensor], context: BlockContext
    ) -> tuple[Tensor, Tensor]:
        inputs = (
            StreamInput(self.text, text, modulation[6:]),
            StreamInput(self.image, image, modulation[:6]),
        )
        text, image = joint_block(self.parts, inputs, context)
        return image, within_fp16(text)


class FluxSingleBlock(nn.Module):
    """One stream; attention and MLP in parallel, between two matrix products."""

    vectors: ClassVar = 3

    def __init__(self, config: FluxConfig, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        dim, width = config.inner_dim, config.attention_head_dim
        self.modulation = parts.linear(dim, self.vectors * dim)
        self.heads = (3, parts.heads(config.num_attention_heads), width)
        outputs, units = (dim, dim, dim, config.mlp_dim), (width, width, width, 1)
        self.qkv_mlp = parts.column(dim, outputs, unit=units)
        self.qk_norm = parts.qk_norm(width)
        self.proj_out = parts.row((dim, config.mlp_dim), dim, unit=(width, 1))

    def forward(self, x: Tensor, modulation: Sequence[Tensor], context: BlockContext) -> Tensor:
        shift, scale, gate = modulation
        qkv, mlp = self.parts.in_two(
            self.qkv_mlp, modulated_norm(x, shift, scale), math.prod(self.heads), context.lora
        )
        qkv = qkv.view(*qkv.shape[:2], *self.heads)  # [B, S, 3, H, D]
        attending = start_attention(
            self.parts, qkv, lambda qk: self.qk_norm(qk, 1e-6, context.lora), context
        )
        hidden = gelu_tanh(mlp())  # while queries, keys and values travel between ranks
        update = self.proj_out(torch.cat((attending.wait(), hidden), dim=-1), context.lora)
        return within_fp16(gated_add(x, gate, update))
