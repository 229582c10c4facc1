"""The FLUX.2 transformer, after black-forest-labs/flux2 and diffusers' Flux2Transformer2DModel.

Like FLUX.1 it has two streams in the first blocks and one in the others, but all blocks of a kind
share their modulation, no linear layer has a bias, and MLPs are gated. Reference images are further
tokens of the image's stream, distinguished by their time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.activation import swiglu
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
from multimodal_gen.runtime.layers.modulation import gated_add, modulated_norm
from multimodal_gen.runtime.layers.norm import HeadNorms
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.rope import Grid, RotaryTables, check_table, rotary_table
from multimodal_gen.runtime.models.dits.flux2.config import AXES, Flux2Config

_VECTORS = (2, 6, 6, 3)  # modulation vectors: of the last norm, of image, text and single blocks
_TIME_STEP = 10  # between the output and each reference image


class Flux2Transformer(nn.Module):
    """Predicts the flow's velocity. Create it on the meta device; fill it with `flux2_key_map`."""

    keep_exact: ClassVar = ("*_embedder*", "*modulation", "proj_out")

    def __init__(self, config: Flux2Config, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.sequence = parts.sequence
        dim, channels = config.inner_dim, config.timestep_guidance_channels
        self.x_embedder = parts.linear(config.in_channels, dim, bias=False)
        self.context_embedder = parts.linear(config.joint_attention_dim, dim, bias=False)
        self.time_embedder = EmbeddingMLP(parts, channels, dim, bias=False)
        self.guidance_embedder = (
            EmbeddingMLP(parts, channels, dim, bias=False) if config.guidance_embeds else None
        )
        self.modulation = parts.linear(dim, sum(_VECTORS) * dim, bias=False)
        doubles = [Flux2DoubleBlock(config, parts) for _ in range(config.num_layers)]
        singles = [Flux2SingleBlock(config, parts) for _ in range(config.num_single_layers)]
        self.blocks = nn.ModuleList([*doubles, *singles])
        self.proj_out = parts.linear(dim, config.token_channels, bias=False)
        self._rotary_tables: RotaryTables[Tensor] = RotaryTables()

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        timestep: Tensor,
        rotary: Tensor,
        references: Tensor | None = None,
        guidance: Tensor | None = None,
        lora: LoraRows | None = None,
    ) -> Tensor:
        """Velocity [B, S_img, out] for packed latents [B, S_img, C].

        `encoder_hidden_states` is [B, S_txt, D], `timestep` [B] in 0..1, `rotary` the result of
        `rotary` for these tokens, `references` [B, S_ref, C] the packed latents of reference
        images, `guidance` [B] or None; a model without guidance embedding ignores it.
        """
        parts = [hidden_states] if references is None else [hidden_states, references]
        streams = (encoder_hidden_states.shape[1], *(part.shape[1] for part in parts))
        context = BlockContext(rotary, streams, lora=lora)
        vectors = self._modulate(timestep, guidance, hidden_states.dtype, lora)
        last, of_image, of_text, of_single = vectors

        shares = [self.sequence.shard(part) for part in parts]
        image = self.x_embedder(torch.cat(shares, dim=1), lora)  # [B, S_local, dim]
        text = self.context_embedder(self.sequence.shard(encoder_hidden_states), lora)
        check_table(rotary, image.shape[1] + text.shape[1])
        for block in self.blocks[: self.config.num_layers]:
            image, text = block(image, text, of_image, of_text, context)
        joint = torch.cat((text, image), dim=1)
        for block in self.blocks[self.config.num_layers :]:
            joint = block(joint, of_single, context)

        image = joint[:, text.shape[1] : text.shape[1] + shares[0].shape[1]]
        scale, shift = last
        image = modulated_norm(image, shift, scale, self.config.eps)
        return self.sequence.gather(self.proj_out(image, lora), streams[1])

    def _modulate(
        self,
        timestep: Tensor,
        guidance: Tensor | None,
        dtype: torch.dtype,
        lora: LoraRows | None,
    ) -> list[Sequence[Tensor]]:
        """Modulation vectors of each kind, each [B, 1, dim]: see `_VECTORS`.

        For the last norm scale and shift; for others shift, scale and gate for each part of a
        block. 1 has been added to the scales, which are every third vector.
        """
        embedded = self._embed(self.time_embedder, timestep, dtype, lora)
        if self.guidance_embedder is not None and guidance is not None:
            embedded = embedded + self._embed(self.guidance_embedder, guidance, dtype, lora)
        vectors: Tensor = self.modulation(F.silu(embedded), lora)
        vectors = vectors.view(len(vectors), -1, 1, self.config.inner_dim)
        vectors[:, ::3].add_(1)
        return [kind.unbind(1) for kind in vectors.split_with_sizes(_VECTORS, dim=1)]

    def _embed(
        self, embedder: nn.Module, value: Tensor, dtype: torch.dtype, lora: LoraRows | None
    ) -> Tensor:
        # Times 1000 in the model's own dtype, including its rounding, as in the reference.
        channels = self.config.timestep_guidance_channels
        embedded: Tensor = embedder(
            sinusoidal_embedding(value.to(dtype) * 1000, channels).to(dtype), lora
        )
        return embedded

    def rotary(self, text: int, grids: Sequence[Grid]) -> Tensor:
        """Rotary table of this rank, [1, S_local, head_dim / 2, 2]: of `text` tokens, the image on
        `grids[0]` (h, w), and reference images on the others."""
        device = self.x_embedder.device

        def table() -> Tensor:
            shares = [self.sequence.shard(part, 0) for part in _positions(text, grids, device)]
            return rotary_table(
                torch.cat(shares)[None], self.config.axes_dims_rope, self.config.rope_theta
            )

        return self._rotary_tables.get((text, tuple(grids), device), table)


class Flux2Stream(JointStream):
    """Weights of text or image in a double block."""

    bias: ClassVar = False
    widening: ClassVar = 2

    def __init__(self, config: Flux2Config, parts: Parts) -> None:
        super().__init__(parts, config.inner_dim, config.num_attention_heads, config.mlp_dim)
        self.eps = config.eps

    def activate(self, hidden: Tensor) -> Tensor:
        return swiglu(hidden)


class Flux2DoubleBlock(nn.Module):
    """Text and image with separate weights and joint attention."""

    def __init__(self, config: Flux2Config, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        self.image = Flux2Stream(config, parts)
        self.text = Flux2Stream(config, parts)

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        of_image: Sequence[Tensor],
        of_text: Sequence[Tensor],
        context: BlockContext,
    ) -> tuple[Tensor, Tensor]:
        inputs = (
            StreamInput(self.text, text, of_text),
            StreamInput(self.image, image, of_image),
        )
        text, image = joint_block(self.parts, inputs, context)
        return image, within_fp16(text)


class Flux2SingleBlock(nn.Module):
    """One stream; attention and MLP in parallel, between two matrix products."""

    def __init__(self, config: Flux2Config, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        self.eps = config.eps
        dim, mlp, width = config.inner_dim, config.mlp_dim, config.attention_head_dim
        self.heads = (3, parts.heads(config.num_attention_heads), width)
        outputs, units = (dim, dim, dim, mlp, mlp), (width, width, width, 1, 1)
        self.qkv_mlp = parts.column(dim, outputs, unit=units, bias=False)
        self.qk_norm = parts.qk_norm(width)
        self.proj_out = parts.row((dim, mlp), dim, unit=(width, 1), bias=False)

    def forward(self, x: Tensor, modulation: Sequence[Tensor], context: BlockContext) -> Tensor:
        shift, scale, gate = modulation
        qkv, mlp = self.parts.in_two(
            self.qkv_mlp,
            modulated_norm(x, shift, scale, self.eps),
            math.prod(self.heads),
            context.lora,
        )
        qkv = qkv.view(*qkv.shape[:2], *self.heads)  # [B, S, 3, H, D]
        norms = HeadNorms([self.qk_norm], qkv.shape[1:2], self.eps, context.lora)
        attending = start_attention(self.parts, qkv, norms, context)
        hidden = swiglu(mlp())  # while queries, keys and values travel between ranks
        update = self.proj_out(torch.cat((attending.wait(), hidden), dim=-1), context.lora)
        return within_fp16(gated_add(x, gate, update))


def _positions(length: int, grids: Sequence[Grid], device: torch.device) -> list[Tensor]:
    """Time, row, column and text position of each stream's tokens, each [S, 4]."""
    text = torch.zeros(length, AXES, device=device)
    text[:, -1] = torch.arange(length, device=device)
    pictures = []
    for i, (height, width) in enumerate(grids):
        axes = (torch.arange(n, device=device) for n in (height, width, 1))
        time = torch.full((1,), i * _TIME_STEP, device=device)
        pictures.append(torch.cartesian_prod(time, *axes))
    references = [torch.cat(pictures[1:])] if len(pictures) > 1 else []
    return [text, pictures[0], *references]
