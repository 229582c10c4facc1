"""The Krea 2 transformer, after krea-ai/krea-2 and diffusers' Krea2Transformer2DModel.

The text arrives as the states of several layers of its encoder, which are fused first: by attention
over the layers of each token, then over the tokens. After that, image and text are one stream, with
fewer keys and values than queries and a gate after each attention. The text is last, so that its
padding is at the end. All norms have a weight that is stored as its difference to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.layers import rope
from multimodal_gen.runtime.layers.activation import gelu_tanh, swiglu
from multimodal_gen.runtime.layers.elementwise import VectorTable
from multimodal_gen.runtime.layers.embedding import EmbeddingMLP, sinusoidal_embedding
from multimodal_gen.runtime.layers.joint_stream import BlockContext
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.modulation import gated_add
from multimodal_gen.runtime.layers.norm import OffsetNorm, rms_norm
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.models.dits.krea2.config import Krea2Config

_VECTORS = 6  # per block: scale, shift and gate of attention, then of the MLP

Attend = Callable[[Tensor, Tensor], Callable[[], Tensor]]
"""(queries and keys [B, S, 2, H, D], values [B, S, H, D]) -> what waits for the result [B, S, H *
D]."""


class Krea2Transformer(nn.Module):
    """Predicts the flow's velocity. Create it on the meta device; fill it with `krea2_key_map`."""

    keep_in_float32: ClassVar = ("norm1", "norm2", "qk_norm", "text_norm", "norm_out")
    keep_exact: ClassVar = ("*_embedder*", "time_proj", "text_layers", "proj_out")

    def __init__(self, config: Krea2Config, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.parts = parts
        self.sequence = parts.sequence
        dim, text = config.inner_dim, config.text_hidden_dim
        self.x_embedder = parts.linear(config.in_channels, dim)
        embedded = config.timestep_embed_dim
        self.time_embedder = EmbeddingMLP(parts, embedded, dim, activation=gelu_tanh)
        self.time_proj = parts.linear(dim, _VECTORS * dim)
        heads = (config.num_attention_heads, config.num_key_value_heads)
        of_text = (config.text_num_attention_heads, config.text_num_key_value_heads)

        def blocks(count: int, *sizes: int, modulated: bool = False) -> nn.ModuleList:
            made = (Krea2Block(config, parts, sizes, modulated=modulated) for _ in range(count))
            return nn.ModuleList(made)

        text_sizes = (text, *of_text, config.text_intermediate_size)
        self.layerwise = blocks(config.num_layerwise_text_blocks, *text_sizes)
        self.text_layers = parts.linear(config.num_text_layers, 1, bias=False)
        self.refiners = blocks(config.num_refiner_text_blocks, *text_sizes)
        self.text_norm = OffsetNorm(text)
        self.text_embedder = EmbeddingMLP(parts, text, dim, activation=gelu_tanh)
        sizes = (dim, *heads, config.intermediate_size)
        self.blocks = blocks(config.num_layers, *sizes, modulated=True)
        self.out_modulation = VectorTable(2, dim)  # scale and shift
        self.norm_out = OffsetNorm(dim)
        self.proj_out = parts.linear(dim, config.in_channels)
        self._rotary_tables: rope.RotaryTables[Tensor] = rope.RotaryTables()

    def forward(
        self,
        hidden_states: Tensor,
        text: Tensor,
        text_tokens: int,
        timestep: Tensor,
        rotary: Tensor,
        lengths: Tensor | None = None,
        lora: LoraRows | None = None,
    ) -> Tensor:
        """Velocity [B, S, C] for packed latents [B, S, C].

        `text` is the result of `refined` for `text_tokens` tokens, of which the first `lengths` [B]
        per row are text (None: all); `timestep` [B] in 0..1; `rotary` the result of `rotary` for
        these tokens.
        """
        streams = (hidden_states.shape[1], text_tokens)
        image = self.x_embedder(self.sequence.shard(hidden_states), lora)
        rope.check_table(rotary, image.shape[1] + text.shape[1])
        ends = None if lengths is None else lengths + streams[0]
        context = BlockContext(rotary, streams, ends, lora)
        embedded, vectors = self._modulate(timestep, hidden_states.dtype, lora)
        joint = torch.cat((image, text), dim=1)
        for block in self.blocks:
            joint = block(joint, context, vectors)
        scale, shift = (self.out_modulation(lora) + embedded).split(1, dim=-2)
        own = joint[:, : image.shape[1]]
        image = self.norm_out(own, self.config.norm_eps, lora, scale + 1, shift)
        return self.sequence.gather(self.proj_out(image, lora), streams[0])

    def _modulate(
        self, timestep: Tensor, dtype: torch.dtype, lora: LoraRows | None
    ) -> tuple[Tensor, Tensor]:
        """Embedded timesteps [B, 1, dim], and their part of all blocks' vectors, [B, 1, 6, dim]; 1
        has been added to the scales."""
        values = sinusoidal_embedding(timestep.float() * 1000, self.config.timestep_embed_dim)
        embedded: Tensor = self.time_embedder(values.to(dtype)[:, None], lora)
        vectors = self.time_proj(gelu_tanh(embedded), lora).unflatten(-1, (_VECTORS, -1))
        vectors[:, :, ::3].add_(1)
        return embedded, vectors

    def refined(self, states: Tensor, lengths: Tensor | None, lora: LoraRows | None) -> Tensor:
        """This rank's tokens [B, T_local, dim] of texts [B, T, layers, D], of which the first
        `lengths` [B] per row are valid (None: all): the same in all evaluations."""
        context = BlockContext(None, (states.shape[1],), lengths, lora)
        layers = states.shape[2:]
        flat = self.sequence.shard(states).flatten(1, 2)
        for block in self.layerwise:
            flat = block(flat, context, layers=layers[0])
        text = self.text_layers(flat.unflatten(1, (-1, layers[0])).mT, context.lora).squeeze(-1)
        for block in self.refiners:
            text = block(text, context)
        text = self.text_norm(text, self.config.norm_eps, context.lora)
        embedded: Tensor = self.text_embedder(text, context.lora)
        return embedded

    def rotary(self, text: int, grid: rope.Grid) -> Tensor:
        """Rotary table of this rank, [1, S_local, head_dim / 2, 2]: of the image on `grid` (h, w),
        and `text` tokens, all at the origin."""
        device, config = self.x_embedder.device, self.config

        def make() -> Tensor:
            axes = (torch.arange(n, device=device) for n in (1, *grid))
            image = torch.cartesian_prod(*axes)
            own = self.sequence.shard(image, 0), self.sequence.shard(image.new_zeros(text, 3), 0)
            return rope.rotary_table(torch.cat(own)[None], config.axes_dims_rope, config.rope_theta)

        return self._rotary_tables.get((text, grid, device), make)


class Krea2Block(nn.Module):
    """Gated attention and MLP, each after a norm.

    If it is modulated, then by the timestep as all blocks are, plus a table of its own.
    """

    def __init__(
        self, config: Krea2Config, parts: Parts, sizes: Sequence[int], *, modulated: bool
    ) -> None:
        """`sizes` are width, heads of queries and of keys, and width of the MLP."""
        super().__init__()
        dim, heads, kv_heads, mlp = sizes
        width, group = dim // heads, heads // kv_heads
        kv, unit = kv_heads * width, group * width  # a unit: the queries of one key
        self.parts, self.eps = parts, config.norm_eps
        self.heads = (parts.heads(kv_heads), group, width)
        self.modulation = VectorTable(_VECTORS, dim) if modulated else None
        self.norm1 = OffsetNorm(dim)
        of_each = (unit, width, width, unit)
        self.qkv_gate = parts.column(dim, (dim, kv, kv, dim), unit=of_each, bias=False)
        self.qk_norm = OffsetNorm(2 * width)
        self.attention_out = parts.row((dim,), dim, unit=unit, bias=False)
        self.norm2 = OffsetNorm(dim)
        self.mlp_in = parts.column(dim, (mlp, mlp), bias=False)
        self.mlp_out = parts.row((mlp,), dim, bias=False)

    def forward(
        self,
        x: Tensor,
        context: BlockContext,
        vectors: Tensor | None = None,
        layers: int | None = None,
    ) -> Tensor:
        """Apply the block to x [B, S_local, dim]; `vectors` [B, 1, 6, dim] of the timestep. With
        `layers`, x is [B, S_local * layers, dim], and the states of each token attend to one
        another alone."""
        attend = self._together(context) if layers is None else self._by_token(layers)
        lora = context.lora
        if self.modulation is None or vectors is None:
            x = x + self._attended(self.norm1(x, self.eps, lora), attend, context)
            return x + self._fed(self.norm2(x, self.eps, lora), lora)
        modulation = (self.modulation(lora) + vectors).unbind(2)
        scale, shift, gate, mlp_scale, mlp_shift, mlp_gate = modulation
        normalised = self.norm1(x, self.eps, lora, scale, shift)
        x = gated_add(x, gate, self._attended(normalised, attend, context))
        normalised = self.norm2(x, self.eps, lora, mlp_scale, mlp_shift)
        return gated_add(x, mlp_gate, self._fed(normalised, lora))

    def _attended(self, x: Tensor, attend: Attend, context: BlockContext) -> Tensor:
        keys, group, width = self.heads
        of_q, of_kv = keys * group, keys  # heads
        first = (of_q + 2 * of_kv) * width
        qkv, gate = self.parts.in_two(self.qkv_gate, x, first, context.lora)
        qk, v = qkv.view(*x.shape[:2], -1 if keys else 0, width).split((of_q + of_kv, of_kv), 2)
        qk = rms_norm(qk, self.eps).float()
        weight = self.qk_norm.weight_of(context.lora).unflatten(-1, (2, 1, width))
        for part, own in zip(qk.split((of_q, of_kv), 2), weight.unbind(-3), strict=True):
            part.mul_(own)
        if context.rotary is not None:
            qk = rope.apply_rotary(qk, context.rotary)
        q, k = qk.split((of_q, of_kv), 2)
        both = torch.stack((q.unflatten(2, (keys, group)), self._repeated(k)), 2)
        waiting = attend(both.flatten(3, 4), self._repeated(v).flatten(2, 3))
        opened = gate().sigmoid()  # while queries, keys and values travel between ranks
        out: Tensor = self.attention_out(waiting() * opened, context.lora)
        return out

    def _together(self, context: BlockContext) -> Attend:
        """Attention of the whole sequence, which ranks may share."""

        def attend(qk: Tensor, v: Tensor) -> Callable[[], Tensor]:
            attending = self.parts.attend(v, context.streams, context.lengths)
            attending.start(qk)
            return attending.wait

        return attend

    def _by_token(self, layers: int) -> Attend:
        """Attention of each token's states [B, T * layers, ...] to one another."""

        def attend(qk: Tensor, v: Tensor) -> Callable[[], Tensor]:
            tokens, count = v.shape[:2]
            q, k = qk.to(v.dtype).reshape(-1, layers, *qk.shape[2:]).unbind(2)
            attended = self.parts.cross_attention(q, k, v.reshape(k.shape))
            return lambda: attended.reshape(tokens, count, -1)

        return attend

    def _repeated(self, x: Tensor) -> Tensor:
        """Keys or values [B, S, H, D] once for each query, [B, S, H, group, D]."""
        return x.unsqueeze(3).expand(-1, -1, -1, self.heads[1], -1)

    def _fed(self, x: Tensor, lora: LoraRows | None) -> Tensor:
        out: Tensor = self.mlp_out(swiglu(self.mlp_in(x, lora)), lora)
        return out
