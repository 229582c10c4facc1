"""The Qwen-Image 2.1 transformer, after diffusers' QwenImage21Transformer2DModel.

Text, input images and output are one stream. Each token attends to those before it, and to all of
its image. What precedes the output, its prefix, is modulated as at timestep 0, and so is the same
in all evaluations: its keys and values are computed once for a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.distributed.local_attention import Prefix
from multimodal_gen.runtime.layers.activation import gelu_tanh, swiglu
from multimodal_gen.runtime.layers.embedding import EmbeddingMLP, sinusoidal_embedding
from multimodal_gen.runtime.layers.joint_stream import BlockContext, start_attention, within_fp16
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.modulation import gated_add
from multimodal_gen.runtime.layers.norm import HeadNorms, OffsetNorm
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.rope import Grid, apply_rotary, check_table, rotary_table
from multimodal_gen.runtime.models.dits.qwen_image_21.config import QwenImage21Config

Segment = int | Grid
"""Tokens of a text, or those of an image down and across."""


class QwenImage21Transformer(nn.Module):
    """Predicts the flow's velocity. Create it on the meta device; fill it with
    `qwen_image_21_key_map`."""

    keep_in_float32: ClassVar = ("text_norm",)
    keep_exact: ClassVar = ("*_embedder*", "*modulation", "proj_out")

    def __init__(self, config: QwenImage21Config, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.sequence = parts.sequence
        dim = config.inner_dim
        self.x_embedder = parts.linear(config.in_channels, dim, bias=False)
        self.text_norm = OffsetNorm(config.context_in_dim)
        self.text_embedder = EmbeddingMLP(
            parts, config.context_in_dim, dim, bias=False, activation=gelu_tanh
        )
        self.time_embedder = EmbeddingMLP(parts, 256, dim, bias=False)
        self.modulation = parts.linear(dim, 4 * dim, bias=False)
        self.blocks = nn.ModuleList(
            QwenImage21Block(config, parts) for _ in range(config.num_layers)
        )
        self.out_modulation = parts.linear(dim, dim, bias=False)
        self.proj_out = parts.linear(dim, config.token_channels, bias=False)

    def forward(
        self,
        timestep: Tensor,
        rotary: Tensor,
        hidden_states: Tensor | None = None,
        prefix: Tensor | None = None,
        lengths: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        pictures: Tensor | None = None,
        segments: Sequence[Segment] = (),
        lora: LoraRows | None = None,
    ) -> Tensor:
        """Velocity [B, S, C] for packed latents [B, S, C].

        `timestep` is [B] in 0..1, `rotary` the last of the tables that `rotary` returns. `prefix`
        is what this returns without `hidden_states`, of which the first `lengths` [B] per row are
        valid (None: all): keys and values of each block, [B, P, blocks, 2, H, D]. For that the
        timestep is 0, `rotary` the first table, `encoder_hidden_states` [B, T, D] the texts and
        `pictures` [B, P, C] the packed latents of the images, in the order of `segments`.
        """
        if hidden_states is None or prefix is None:
            assert encoder_hidden_states is not None
            x = self._joined(encoder_hidden_states, pictures, segments, lora)
            return self._prefix(x, timestep, segments, BlockContext(rotary, (), lora=lora))
        length = hidden_states.shape[1]
        x = self.x_embedder(self.sequence.shard(hidden_states), lora)
        check_table(rotary, x.shape[1])
        time, vectors = self._modulate(timestep, x.dtype, lora)
        context = BlockContext(rotary, (length,), lora=lora)
        for block, pair in zip(self.blocks, prefix.unbind(2), strict=True):
            keys, values = pair.unbind(2)
            told = Prefix(keys, values, lengths)
            x = block(x, vectors, context._replace(prefix=told))
        scale = self.out_modulation(F.silu(time), lora).unsqueeze(1) + 1
        x = F.layer_norm(x, x.shape[-1:], eps=self.config.eps) * scale
        velocity: Tensor = self.proj_out(x, lora)
        return self.sequence.gather(velocity, length)

    def _joined(
        self,
        states: Tensor,
        pictures: Tensor | None,
        segments: Sequence[Segment],
        lora: LoraRows | None,
    ) -> Tensor:
        """The prefix's tokens, [B, P, dim]: every rank has them all."""
        text: Tensor = self.text_embedder(self.text_norm(states, self.config.eps, lora), lora)
        if pictures is None:
            return text
        image: Tensor = self.x_embedder(pictures, lora)
        kinds = [(text, _count(n)) if isinstance(n, int) else (image, _count(n)) for n in segments]
        own = {id(x): iter(x.split([n for y, n in kinds if y is x], dim=1)) for x in (text, image)}
        return torch.cat([next(own[id(x)]) for x, _ in kinds], dim=1)

    def _prefix(
        self, x: Tensor, timestep: Tensor, segments: Sequence[Segment], context: BlockContext
    ) -> Tensor:
        _, vectors = self._modulate(timestep, x.dtype, context.lora)
        found = []
        for block in self.blocks:
            x, pair = block(x, vectors, context, segments)
            found.append(self.sequence.own_heads(pair))
        return torch.stack(found, dim=2)

    def _modulate(
        self, timestep: Tensor, dtype: torch.dtype, lora: LoraRows | None
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Embedded timestep [B, dim]; scale and gate, twice, of all blocks, each [B, 1, dim]."""
        values = sinusoidal_embedding(timestep.to(dtype).float() * 1000)
        time: Tensor = self.time_embedder(values.to(dtype), lora)
        vectors = self.modulation(F.silu(time), lora).view(len(time), 4, 1, -1)
        vectors[:, ::2].add_(1)
        vectors[:, 1::2].tanh_()
        return time, vectors.unbind(1)

    def rotary(self, segments: Sequence[Segment], output: Grid) -> tuple[Tensor, Tensor]:
        """Rotary tables of the prefix, [P, head_dim / 2, 2], and of this rank's share of the
        output's tokens: a text counts up on all axes, an image stays at its first place in time,
        is centred on 0 and takes as many places as its longer side."""
        device, positions, place = self.x_embedder.device, [], 0
        for segment in (*segments, output):
            if isinstance(segment, int):
                text = torch.arange(place, place + segment, device=device)
                positions.append(text[:, None].expand(-1, 3))
                place += segment
            else:
                time = torch.full((1,), place, device=device)
                sides = (torch.arange(n, device=device) - (n - n // 2) for n in segment)
                positions.append(torch.cartesian_prod(time, *sides))
                place += max(segment)
        own = self.sequence.shard(positions.pop(), 0)
        table = rotary_table(torch.cat((*positions, own)), self.config.axes_dims_rope)
        prefix, target = table.split((len(table) - len(own), len(own)))
        return prefix, target


class QwenImage21Block(nn.Module):
    """One stream with attention, then an MLP; all blocks share their modulation."""

    def __init__(self, config: QwenImage21Config, parts: Parts) -> None:
        super().__init__()
        dim, mlp, width = config.inner_dim, config.mlp_dim, config.attention_head_dim
        self.parts = parts
        self.eps = config.eps
        self.heads = (3, parts.heads(config.num_attention_heads), width)
        self.qkv = parts.column(dim, (dim, dim, dim), unit=width, bias=False)
        self.qk_norm = parts.qk_norm(width)
        self.attention_out = parts.row((dim,), dim, unit=width, bias=False)
        self.mlp_in = parts.column(dim, (mlp, mlp), bias=False)
        self.mlp_out = parts.row((mlp,), dim, bias=False)

    def forward(
        self,
        x: Tensor,
        vectors: Sequence[Tensor],
        context: BlockContext,
        segments: Sequence[Segment] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """x [B, S_local, dim] of the output, which attends to all of itself and to its prefix; with
        `segments` x [B, P, dim] of the prefix, and its keys and values [B, P, 2, H, D]."""
        if segments is not None:
            return self._first(x, vectors, context, segments)
        qkv = self._project(x, vectors, context)
        attending = start_attention(self.parts, qkv, self._norms(qkv, context), context)
        return self._update(x, attending.wait(), vectors, context.lora)

    def _first(
        self,
        x: Tensor,
        vectors: Sequence[Tensor],
        context: BlockContext,
        segments: Sequence[Segment],
    ) -> tuple[Tensor, Tensor]:
        qkv = self._project(x, vectors, context)
        assert context.rotary is not None
        qk = apply_rotary(self._norms(qkv, context)(qkv[:, :, :2]), context.rotary)
        q, k, v = (*qk.to(qkv.dtype).unbind(2), qkv[:, :, 2])
        attended, end = [], 0
        for segment in segments:
            start, end = (
                end,
                end + (segment if isinstance(segment, int) else segment[0] * segment[1]),
            )
            own = (q[:, start:end], k[:, :end], v[:, :end])
            causal = isinstance(segment, int)
            attended.append(_causal(*own) if causal else self.parts.cross_attention(*own))
        out = torch.cat(attended, dim=1).flatten(2)
        return self._update(x, out, vectors, context.lora), torch.stack((k, v), dim=2)

    def _project(self, x: Tensor, vectors: Sequence[Tensor], context: BlockContext) -> Tensor:
        scaled = F.layer_norm(x, x.shape[-1:], eps=self.eps) * vectors[0]
        qkv: Tensor = self.qkv(scaled, context.lora)
        return qkv.view(*x.shape[:2], *self.heads)  # [B, S, 3, H, D]

    def _norms(self, qkv: Tensor, context: BlockContext) -> HeadNorms:
        return HeadNorms([self.qk_norm], qkv.shape[1:2], self.eps, context.lora)

    def _update(
        self, x: Tensor, attended: Tensor, vectors: Sequence[Tensor], lora: LoraRows | None
    ) -> Tensor:
        x = gated_add(x, vectors[1], self.attention_out(attended, lora))
        scaled = F.layer_norm(x, x.shape[-1:], eps=self.eps) * vectors[2]
        hidden = swiglu(self.mlp_in(scaled, lora))
        return within_fp16(gated_add(x, vectors[3], self.mlp_out(hidden, lora)))


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of the last tokens [B, S, H, D] to those before each, like q."""
    if not q.numel():
        return q
    seen = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device)
    seen = seen.tril(k.shape[1] - q.shape[1])
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2)


def _count(segment: Segment) -> int:
    return segment if isinstance(segment, int) else segment[0] * segment[1]
