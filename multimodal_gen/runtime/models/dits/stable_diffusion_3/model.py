"""The Stable Diffusion 3 and 3.5 transformer (Esser et al. 2024, arXiv:2403.03206).

After diffusers' SD3Transformer2DModel.

Image and text are two streams with separate weights and joint attention; in 3.5 medium the image
also attends to itself in the first blocks. The last block's text ends after the attention. One
matrix product here may be several tensors in a checkpoint: keys.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.embedding import EmbeddingMLP, sinusoidal_embedding
from multimodal_gen.runtime.layers.joint_stream import (
    AttendedInput,
    AttendedStream,
    AttendingStream,
    BlockContext,
    JointStream,
    apart,
    joint_attention,
)
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.modulation import block_vectors, modulated_norm, split_vectors
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.models.dits.after_block import AfterBlock, Residuals, adding
from multimodal_gen.runtime.models.dits.stable_diffusion_3.config import SD3Config

_OUT, _STREAM, _ALONE, _ENDING = 2, 6, 3, 2
"""Modulation vectors of the last norm, a stream, the image's self-attention, the last text."""


class SD3Transformer(nn.Module):
    """Predicts the flow's velocity. Create it on the meta device; fill it with `sd3_key_map`."""

    keep_exact: ClassVar = ("*_embedder*", "*modulation", "proj_out")

    def __init__(self, config: SD3Config, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.sequence = parts.sequence
        dim, patch = config.inner_dim, config.patch_size
        self.patch_embed = parts.patches(config.in_channels, dim, (patch, patch))
        self.pos_embed = nn.Parameter(torch.empty(1, config.pos_embed_max_size**2, dim))
        self.context_embedder = parts.linear(config.joint_attention_dim, dim)
        self.time_embedder = EmbeddingMLP(parts, 256, dim)
        self.text_embedder = EmbeddingMLP(parts, config.pooled_projection_dim, dim)
        blocks = [SD3Block(config, i, parts) for i in range(config.num_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.out_modulation = parts.linear(dim, _OUT * dim)
        self._modulations = [self.out_modulation, *(block.modulation for block in blocks)]
        self._vectors = [_OUT, *(count for block in blocks for count in block.vectors)]
        self.proj_out = parts.linear(dim, config.in_channels * patch**2)

    @property
    def layers_ahead(self) -> Sequence[nn.Module]:
        """Layers of blocks that run before the first block."""
        return self._modulations

    def forward(
        self,
        latents: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        control: Residuals | None = None,
        lora: LoraRows | None = None,
    ) -> Tensor:
        """Velocity for latents [B, C, h, w], whose sides are multiples of the patch size.

        `encoder_hidden_states` is [B, S_txt, D], `pooled_projections` [B, P], `timestep` [B] in
        0..1000; `control` is added to the image's tokens.
        """
        height, width = (side // self.config.patch_size for side in latents.shape[-2:])
        streams = (height * width, encoder_hidden_states.shape[1])
        context = BlockContext(None, streams, lora=lora)
        (scale, shift), *modulations = self._modulate(timestep, pooled_projections, lora)
        image = self.embed_patches(latents, lora)  # [B, S_img, dim]
        text = self.context_embedder(self.sequence.shard(encoder_hidden_states), lora)
        image = self.run(image, text, modulations, context, adding(control))
        tokens = self.proj_out(modulated_norm(image, shift, scale), lora)
        return self._unpatchify(self.sequence.gather(tokens, streams[0]), height, width)

    def run(
        self,
        image: Tensor,
        text: Tensor,
        modulations: Sequence[Sequence[Tensor]],
        context: BlockContext,
        after: AfterBlock | None = None,
    ) -> Tensor:
        """Run the blocks on this rank's tokens of both streams, [B, S_local, dim]; returns those
        of the image, which `after` is given as well."""
        for i, block in enumerate(self.blocks):
            image, text = block(image, text, modulations[2 * i], modulations[2 * i + 1], context)
            if after is not None:
                after(i, image)
        return image

    def _modulate(
        self, timestep: Tensor, pooled: Tensor, lora: LoraRows | None
    ) -> list[Sequence[Tensor]]:
        """All modulation vectors of an evaluation, each [B, 1, dim]. Last norm: scale and shift;
        each block and stream: shift, scale and gate; last text: scale and shift."""
        embedded = self.time_embedder(sinusoidal_embedding(timestep).to(pooled.dtype), lora)
        embedded = F.silu(embedded + self.text_embedder(pooled, lora))
        vectors = block_vectors(self._modulations, embedded, self.config.inner_dim, lora)
        self._add_to_scales(vectors)
        return split_vectors(vectors, self._vectors)

    def _add_to_scales(self, vectors: Tensor) -> None:
        """Add 1 to the scales among the modulation vectors [B, vectors, 1, dim]."""
        vectors[:, :-_ENDING:3].add_(1)
        vectors[:, -_ENDING].add_(1)

    def embed_patches(self, latents: Tensor, lora: LoraRows | None) -> Tensor:
        """Embed this rank's share of the image's tokens, positioned at the centre of the largest
        image."""
        patch, largest = self.config.patch_size, self.config.pos_embed_max_size
        height, width = (side // patch for side in latents.shape[-2:])
        if max(height, width) > largest:
            raise ValueError(
                f"{height} x {width} tokens: the model supports at most {largest} per side"
            )
        tokens: Tensor = self.patch_embed(self.sequence.shard(patches_of(latents, patch)), lora)
        top, left = (largest - height) // 2, (largest - width) // 2
        table = self.pos_embed.view(largest, largest, -1)
        places = table[top : top + height, left : left + width].flatten(0, 1)
        return tokens + self.sequence.shard(places, 0)

    def _unpatchify(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """[B, h * w, p * p * C] -> [B, C, h * p, w * p]."""
        patch = self.config.patch_size
        # [B, h, w, p, p, C]
        patches: Tensor = tokens.unflatten(2, (patch, patch, -1)).unflatten(1, (height, width))
        return patches.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class SD3Block(nn.Module):
    """Image and text with separate weights and joint attention."""

    text: AttendedStream

    def __init__(self, config: SD3Config, index: int, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        dim, heads = config.inner_dim, config.num_attention_heads
        norm = config.qk_norm is not None
        self.image = JointStream(parts, dim, heads, config.mlp_dim, qk_norm=norm)
        self.image_alone: AttendingStream | None = None
        if index in config.dual_attention_layers:
            self.image_alone = AttendingStream(parts, dim, heads, qk_norm=norm)
        last = config.ends_text(index)
        if last:
            self.text = AttendedStream(parts, dim, heads, qk_norm=norm)
        else:
            self.text = JointStream(parts, dim, heads, config.mlp_dim, qk_norm=norm)
        of_image = _STREAM + (_ALONE if self.image_alone is not None else 0)
        self.vectors = (of_image, _ENDING if last else _STREAM)
        """Modulation vectors of image and text."""
        self.modulation = parts.linear(dim, sum(self.vectors) * dim)

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        of_image: Sequence[Tensor],
        of_text: Sequence[Tensor],
        context: BlockContext,
    ) -> tuple[Tensor, Tensor]:
        """Both streams after this block; the last block's text is not used any further."""
        tokens, lora = image.shape[1], context.lora
        continues = isinstance(self.text, JointStream)
        streams: list[AttendedInput] = [
            (self.image, image, of_image),
            (self.text, text, of_text if continues else of_text[::-1]),
        ]
        attended = joint_attention(self.parts, streams, context)
        own_part, other = apart(attended, (tokens, text.shape[1]))
        updated = self.image.attend(image, own_part, of_image, lora)
        if self.image_alone is not None:
            own = of_image[_STREAM:]
            by_itself = context._replace(streams=context.streams[:1])
            alone = joint_attention(self.parts, [(self.image_alone, image, own)], by_itself)
            updated = self.image_alone.attend(updated, alone, own, lora)
        if isinstance(self.text, JointStream):
            text = self.text.update(text, other, of_text, lora)
        return self.image.feed(updated, of_image, lora), text


def patches_of(latents: Tensor, patch: int) -> Tensor:
    """[B, C, h * p, w * p] -> [B, h * w, C * p * p], channels outermost."""
    # [B, C, h, p, w, p]
    patches: Tensor = latents.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
