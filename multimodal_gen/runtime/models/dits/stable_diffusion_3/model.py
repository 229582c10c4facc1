"""The Stable Diffusion 3 and 3.5 transformer (Esser et al. 2024, arXiv:2403.03206).

After diffusers' SD3Transformer2DModel.

Image and text are two streams with weights of their own that attend jointly; in 3.5 medium the
image also attends to itself in the first blocks. The last block's text ends once it was attended
to. What is one matrix product here may be several tensors in a checkpoint: keys.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.distributed.ulysses import SequenceParallel
from multimodal_gen.runtime.layers.embedding import EmbeddingMLP, sinusoidal_embedding
from multimodal_gen.runtime.layers.joint_stream import (
    AttendedStream,
    AttendingStream,
    JointStream,
    join_streams,
    joint_attention,
)
from multimodal_gen.runtime.layers.modulation import modulated_norm
from multimodal_gen.runtime.layers.patches import PatchLinear
from multimodal_gen.runtime.models.dits.stable_diffusion_3.config import SD3Config

_OUT, _STREAM, _ALONE, _ENDING = 2, 6, 3, 2
"""Modulation vectors of the last norm, a stream, the image's own attention, the last text."""


class SD3Transformer(nn.Module):
    """Predicts the flow's velocity. Make it on the meta device; fill it by `sd3_key_map`."""

    def __init__(self, config: SD3Config, sequence: SequenceParallel) -> None:
        super().__init__()
        self.config = config
        self.sequence = sequence
        dim, patch = config.inner_dim, config.patch_size
        self.patch_embed = PatchLinear(config.in_channels, dim, (patch, patch))
        self.pos_embed = nn.Parameter(torch.empty(1, config.pos_embed_max_size**2, dim))
        self.context_embedder = nn.Linear(config.joint_attention_dim, dim)
        self.time_embedder = EmbeddingMLP(256, dim)
        self.text_embedder = EmbeddingMLP(config.pooled_projection_dim, dim)
        blocks = [SD3Block(config, i, sequence) for i in range(config.num_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.vectors = [_OUT, *(count for block in blocks for count in block.vectors)]
        self.modulation = nn.Linear(dim, sum(self.vectors) * dim)
        self.proj_out = nn.Linear(dim, config.in_channels * patch**2)

    def forward(
        self,
        latents: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
    ) -> Tensor:
        """Velocity for latents [B, C, h, w], whose sides are multiples of the patch size.

        `encoder_hidden_states` is [B, S_txt, D], `pooled_projections` [B, P], `timestep` [B] in
        0..1000.
        """
        height, width = (side // self.config.patch_size for side in latents.shape[-2:])
        streams = (height * width, encoder_hidden_states.shape[1])
        (scale, shift), *modulations = self._modulate(timestep, pooled_projections)
        image = self._embed_patches(latents, height, width)  # [B, S_img, dim]
        text = self.context_embedder(self.sequence.shard(encoder_hidden_states))
        for i, block in enumerate(self.blocks):
            image, text = block(image, text, modulations[2 * i], modulations[2 * i + 1], streams)
        tokens = self.proj_out(modulated_norm(image, shift, scale))
        return self._unpatchify(self.sequence.gather(tokens, streams[0]), height, width)

    def _modulate(self, timestep: Tensor, pooled: Tensor) -> Sequence[Sequence[Tensor]]:
        """All modulation vectors of an evaluation, each [B, 1, dim]: of the last norm scale and
        shift; for each block and stream shift, scale and gate; of the last text scale and shift."""
        embedded = self.time_embedder(sinusoidal_embedding(timestep).to(pooled.dtype))
        embedded = embedded + self.text_embedder(pooled)
        vectors: Tensor = self.modulation(F.silu(embedded))
        vectors = vectors.view(len(vectors), -1, 1, self.config.inner_dim)  # [B, vectors, 1, dim]
        vectors[:, :-_ENDING:3] += 1
        vectors[:, -_ENDING] += 1
        each = vectors.unbind(1)
        starts = [sum(self.vectors[:i]) for i in range(len(self.vectors))]
        return [each[at : at + count] for at, count in zip(starts, self.vectors, strict=True)]

    def _embed_patches(self, latents: Tensor, height: int, width: int) -> Tensor:
        """This rank's share of the image's tokens, placed in the middle of the largest picture."""
        patch, largest = self.config.patch_size, self.config.pos_embed_max_size
        if max(height, width) > largest:
            raise ValueError(
                f"{height} x {width} tokens: the model has places for {largest} a side"
            )
        # [B, C, h, p, w, p] -> [B, h * w, C * p * p]
        patches: Tensor = latents.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        tokens: Tensor = self.patch_embed(self.sequence.shard(patches))
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
    """Image and text with weights of their own, attending to both."""

    def __init__(self, config: SD3Config, index: int, sequence: SequenceParallel) -> None:
        super().__init__()
        self.sequence = sequence
        dim, heads = config.inner_dim, config.num_attention_heads
        norm = config.qk_norm is not None
        self.image = JointStream(dim, heads, config.mlp_dim, qk_norm=norm)
        self.image_alone: AttendingStream | None = None
        if index in config.dual_attention_layers:
            self.image_alone = AttendingStream(dim, heads, qk_norm=norm)
        self.text: AttendedStream
        last = index == config.num_layers - 1
        if last:
            self.text = AttendedStream(dim, heads, qk_norm=norm)
        else:
            self.text = JointStream(dim, heads, config.mlp_dim, qk_norm=norm)
        of_image = _STREAM + (_ALONE if self.image_alone is not None else 0)
        self.vectors = (of_image, _ENDING if last else _STREAM)
        """Modulation vectors of image and text."""

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        of_image: Sequence[Tensor],
        of_text: Sequence[Tensor],
        streams: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """The streams after this block; the last one's text is of no more use."""
        tokens = image.shape[1]
        continues = isinstance(self.text, JointStream)
        attended = self._attend(
            [
                (self.image, image, of_image),
                (self.text, text, of_text if continues else of_text[::-1]),
            ],
            streams,
        )
        updated = self.image.attend(image, attended[:, :tokens], of_image)
        if self.image_alone is not None:
            own = of_image[_STREAM:]
            alone = self._attend([(self.image_alone, image, own)], streams[:1])
            updated = self.image_alone.attend(updated, alone, own)
        if isinstance(self.text, JointStream):
            text = self.text.update(text, attended[:, tokens:], of_text)
        return self.image.feed(updated, of_image), text

    def _attend(
        self,
        inputs: Sequence[tuple[AttendedStream, Tensor, Sequence[Tensor]]],
        streams: Sequence[int],
    ) -> Tensor:
        qk, v = join_streams(inputs)
        return joint_attention(self.sequence, qk, v, None, streams)
