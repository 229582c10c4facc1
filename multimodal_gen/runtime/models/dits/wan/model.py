"""The Wan transformer, after Wan-Video/Wan2.1 and diffusers' WanTransformer3DModel.

Video patches are one stream with self-attention, and cross-attention to a text and optionally to an
image's CLIP tokens. Every block is modulated by the timestep and a table of its own. One matrix
product here may be several tensors in a checkpoint: keys.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.activation import gelu_tanh
from multimodal_gen.runtime.layers.elementwise import VectorTable
from multimodal_gen.runtime.layers.embedding import (
    EmbeddingMLP,
    sinusoidal_embedding,
)
from multimodal_gen.runtime.layers.joint_stream import BlockContext, start_attention
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.modulation import by_group, gated_add, modulated_norm
from multimodal_gen.runtime.layers.norm import HeadNorms, LayerNorm
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.rope import RotaryTables, rotary_table
from multimodal_gen.runtime.models.dits.wan.config import WanConfig

SharedInputs = tuple[tuple[Tensor, Tensor | None], Tensor, list[int], BlockContext]
"""Inputs of `WanBlock.forward` besides the tokens."""
_VECTORS = 6  # per block: shift, scale and gate of attention, then of the MLP
_TEXT_TOKENS = 512


class WanTransformer(nn.Module):
    """Predicts the flow's velocity. Create it on the meta device; fill it with `wan_key_map`."""

    keep_in_float32: ClassVar = (
        "time_embedder",
        "modulation",
        "out_modulation",
        "cross_norm",
        "norm1",
        "norm2",
    )
    ignored: ClassVar = ("norm_added_q",)
    """Present in published image-to-video checkpoints, without effect."""

    keep_exact: ClassVar = ("*_embedder*", "time_proj", "proj_out")

    def __init__(self, config: WanConfig, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.sequence = parts.sequence
        dim = config.inner_dim
        self.patch_embedding = parts.patches(config.in_channels, dim, config.patch_size)
        self.time_embedder = EmbeddingMLP(parts, config.freq_dim, dim)
        self.time_proj = parts.linear(dim, _VECTORS * dim)
        self.text_embedder = EmbeddingMLP(parts, config.text_dim, dim, activation=gelu_tanh)
        self.image_embedder = (
            None
            if config.image_dim is None
            else ImageEmbedding(parts, config.image_dim, dim, config.pos_embed_seq_len)
        )
        self.blocks = nn.ModuleList(self.make_blocks(parts))
        self.out_modulation = VectorTable(1, 2, dim)  # shift and scale
        volume = torch.Size(config.patch_size).numel()
        self.proj_out = parts.linear(dim, config.velocity_channels * volume)
        self._rotary_tables: RotaryTables[Tensor] = RotaryTables()

    def make_blocks(self, parts: Parts) -> Sequence[nn.Module]:
        """Create the blocks, in the order in which `run` runs them."""
        return [WanBlock(self.config, parts) for _ in range(self.config.num_layers)]

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        rotary: Tensor,
        encoder_hidden_states_image: Tensor | None = None,
        control: Tensor | None = None,
        control_scale: Tensor | None = None,
        lora: LoraRows | None = None,
    ) -> Tensor:
        """Velocity [B, out, T, H, W] for latents [B, C, T, H, W], multiples of the patch.

        `timestep` is [B, 1], or [B, 2] if the first frame's tokens have a separate one: the second
        applies to all others. `encoder_hidden_states` is [B, S_txt, D], `rotary` the result of
        `rotary` for these latents; `encoder_hidden_states_image` [B, S_img, image_dim], for models
        that use it; `control` [B, C_control, T, H, W] and its scale [B] for `WanVaceTransformer`.
        """
        grid = self._grid(hidden_states.shape[2:])
        tokens = torch.Size(grid).numel()
        counts = self._timestep_counts(timestep.shape[1], tokens // grid[0], tokens)
        seen = self._seen(encoder_hidden_states, encoder_hidden_states_image, lora)
        embedded, vectors = self._modulate(timestep, hidden_states.dtype, lora)
        x = patchify(hidden_states, self.config.patch_size)
        x = self.patch_embedding(self.sequence.shard(x), lora)
        context = BlockContext(rotary, (tokens,), lora=lora)
        x = self.run(x, (seen, vectors, counts, context), control, control_scale)
        shift, scale = (self.out_modulation(lora) + embedded.unsqueeze(2)).unbind(2)  # [B, G, dim]
        x = self.proj_out(_modulated(x, shift, scale + 1, counts, self.config.eps), lora)
        return self._unpatchify(self.sequence.gather(x, tokens), grid)

    def run(
        self,
        x: Tensor,
        shared: SharedInputs,
        control: Tensor | None,
        control_scale: Tensor | None,
    ) -> Tensor:
        """Tokens [B, S_local, dim] after all blocks; `shared` are the blocks' other inputs."""
        for block in self.blocks:
            x = block(x, *shared)
        return x

    def _timestep_counts(self, timesteps: int, first_frame: int, tokens: int) -> list[int]:
        """Number of this rank's tokens for each of a row's timesteps."""
        share = self.sequence.share(tokens)
        if timesteps == 1:
            return [len(share)]
        first = max(0, min(share.stop, first_frame) - share.start)
        return [first, len(share) - first]

    def _modulate(
        self, timestep: Tensor, dtype: torch.dtype, lora: LoraRows | None
    ) -> tuple[Tensor, Tensor]:
        """Embedded timesteps [B, G, dim], and their part of all blocks' modulation vectors, [B, G,
        6, dim]; 1 has been added to the scales."""
        values = sinusoidal_embedding(timestep.flatten(), self.config.freq_dim)
        values = values.to(self.time_embedder.linear_1.dtype)
        embedded = self.time_embedder(values, lora).to(dtype).unflatten(0, timestep.shape)
        vectors = self.time_proj(F.silu(embedded), lora).float().unflatten(-1, (_VECTORS, -1))
        vectors[:, :, 1::3].add_(1)
        return embedded, vectors

    def _seen(
        self, text: Tensor, picture: Tensor | None, lora: LoraRows | None
    ) -> tuple[Tensor, Tensor | None]:
        """Text and image tokens for cross-attention in all blocks, both [B, S, dim].

        The last 512 tokens count as text, which is the text's length in the reference.
        """
        seen = self.text_embedder(text, lora)
        if picture is not None and self.image_embedder is not None:
            seen = torch.cat((self.image_embedder(picture, lora), seen), dim=1)
        if self.config.added_kv_proj_dim is None:
            return seen, None
        pictures = seen[:, : seen.shape[1] - _TEXT_TOKENS]
        return seen[:, pictures.shape[1] :], pictures

    def _grid(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Number of tokens in time, down and across for latents of these sizes (T, H, W)."""
        patches = zip(sizes, self.config.patch_size, strict=True)
        return tuple(size // patch for size, patch in patches)

    def rotary(self, sizes: Sequence[int]) -> Tensor:
        """Rotary table of this rank, [1, S_local, head_dim / 2, 2], for latents of sizes (T, H,
        W)."""
        grid, device = self._grid(sizes), self.time_proj.device

        def make() -> Tensor:
            positions = torch.cartesian_prod(*(torch.arange(n, device=device) for n in grid))
            return rotary_table(self.sequence.shard(positions, 0)[None], self.config.axes_dims_rope)

        return self._rotary_tables.get((grid, device), make)

    def _unpatchify(self, x: Tensor, grid: tuple[int, ...]) -> Tensor:
        """[B, S, pt * ph * pw * C] -> [B, C, T, H, W]."""
        patches = x.view(len(x), *grid, *self.config.patch_size, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return patches.flatten(6, 7).flatten(4, 5).flatten(2, 3)


class WanBlock(nn.Module):
    """Self-attention, cross-attention, MLP; the first and the last are modulated."""

    def __init__(self, config: WanConfig, parts: Parts) -> None:
        super().__init__()
        dim, width = config.inner_dim, config.attention_head_dim
        self.parts = parts
        self.eps = config.eps
        self.heads = (parts.heads(config.num_attention_heads), width)
        self.modulation = VectorTable(1, _VECTORS, dim)
        self.qkv = parts.column(dim, (dim, dim, dim), unit=width)
        self.qk_norm = parts.qk_norm(dim, unit=width)
        self.attention_out = parts.row((dim,), dim, unit=width)
        self.cross_norm = LayerNorm(dim, config.eps) if config.cross_attn_norm else None
        self.cross = CrossAttention(config, parts)
        self.mlp_in = parts.column(dim, (config.ffn_dim,))
        self.mlp_out = parts.row((config.ffn_dim,), dim)

    def forward(
        self,
        x: Tensor,
        seen: tuple[Tensor, Tensor | None],
        vectors: Tensor,
        counts: list[int],
        context: BlockContext,
    ) -> Tensor:
        """Apply the block to x [B, S_local, dim]. `seen` are text and image tokens, `vectors` [B,
        G, 6, dim] is added to the block's own, and `counts` as in `_modulated`."""
        lora = context.lora
        vectors = self.modulation(lora) + vectors
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = vectors.unbind(2)
        attended = self._attend(_modulated(x, shift, scale, counts, self.eps), context)
        x = _gated(x, gate, self.attention_out(attended, lora), counts)
        normalised = x if self.cross_norm is None else self.cross_norm(x, lora)
        x = x + self.cross(normalised, *seen, lora)
        hidden = self.mlp_in(_modulated(x, mlp_shift, mlp_scale, counts, self.eps), lora)
        return _gated(x, mlp_gate, self.mlp_out(gelu_tanh(hidden), lora), counts)

    def _attend(self, x: Tensor, context: BlockContext) -> Tensor:
        qkv = self.qkv(x, context.lora).unflatten(2, (3, *self.heads))  # [B, S, 3, H, D]
        norms = HeadNorms([self.qk_norm], qkv.shape[1:2], self.eps, context.lora, across=True)
        return start_attention(self.parts, qkv, norms, context).wait()


class CrossAttention(nn.Module):
    """Cross-attention from the video to a text and, in some models, to an image."""

    def __init__(self, config: WanConfig, parts: Parts) -> None:
        super().__init__()
        dim, width = config.inner_dim, config.attention_head_dim
        self.parts = parts
        self.heads = (parts.heads(config.num_attention_heads), width)
        self.q = parts.column(dim, (dim,), unit=width)
        self.norm_q = parts.norm(dim, config.eps, unit=width)
        self.text = KeysAndValues(dim, config, parts)
        added = config.added_kv_proj_dim
        self.image = None if added is None else KeysAndValues(added, config, parts)
        self.out = parts.row((dim,), dim, unit=width)

    def forward(
        self, x: Tensor, text: Tensor, image: Tensor | None, lora: LoraRows | None
    ) -> Tensor:
        q = self.norm_q(self.q(x, lora), lora).unflatten(-1, self.heads)
        attended = self.parts.cross_attention(q, *self.text(text, lora))
        if self.image is not None and image is not None and image.shape[1]:
            attended = attended + self.parts.cross_attention(q, *self.image(image, lora))
        projected: Tensor = self.out(attended.flatten(2), lora)
        return projected


class KeysAndValues(nn.Module):
    """Keys and values of cross-attention for one kind of token."""

    def __init__(self, width: int, config: WanConfig, parts: Parts) -> None:
        super().__init__()
        dim, head = config.inner_dim, config.attention_head_dim
        self.heads = (parts.heads(config.num_attention_heads), head)
        self.kv = parts.column(width, (dim, dim), unit=head)
        self.norm_k = parts.norm(dim, config.eps, unit=head)

    def forward(self, seen: Tensor, lora: LoraRows | None) -> tuple[Tensor, Tensor]:
        """Keys and values, both [B, S, H, D], of tokens [B, S, width]."""
        k, v = self.kv(seen, lora).chunk(2, dim=-1)
        return self.norm_k(k, lora).unflatten(-1, self.heads), v.unflatten(-1, self.heads)


class ImageEmbedding(nn.Module):
    """CLIP's tokens [B, S, in] -> [B, S, out]; if `positions` is set, S must equal it."""

    def __init__(
        self, parts: Parts, in_features: int, out_features: int, positions: int | None
    ) -> None:
        super().__init__()
        self.pos_embed = (
            None if positions is None else nn.Parameter(torch.empty(1, positions, in_features))
        )
        self.norm1 = LayerNorm(in_features)
        self.linear_1 = parts.linear(in_features, in_features)
        self.linear_2 = parts.linear(in_features, out_features)
        self.norm2 = LayerNorm(out_features)

    def forward(self, x: Tensor, lora: LoraRows | None) -> Tensor:
        if self.pos_embed is not None:
            x = x + self.pos_embed
        hidden = F.gelu(self.linear_1(self.norm1(x, lora), lora))
        embedded: Tensor = self.norm2(self.linear_2(hidden, lora), lora)
        return embedded


def patchify(x: Tensor, patch: Sequence[int]) -> Tensor:
    """[B, C, T, H, W] -> [B, S, C * pt * ph * pw] for a patch (pt, ph, pw)."""
    for axis in (4, 3, 2):
        x = x.unflatten(axis, (-1, patch[axis - 2]))  # at last [B, C, f, pt, h, ph, w, pw]
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor, counts: list[int], eps: float) -> Tensor:
    """Modulated norm of x [B, S, dim]; shift and scale [B, G, dim] are for `counts` tokens each."""
    return by_group(
        lambda part, by, factor: modulated_norm(part, by, factor, eps), counts, (x,), (shift, scale)
    )


def _gated(x: Tensor, gate: Tensor, update: Tensor, counts: list[int]) -> Tensor:
    """x + gate * update, with gates as in `_modulated`."""
    return by_group(
        lambda part, added, by: gated_add(part, by, added), counts, (x, update), (gate,)
    )
