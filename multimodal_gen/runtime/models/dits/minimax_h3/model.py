"""The MiniMax-H3 transformer, after diffusers' MiniMaxH3Transformer3DModel.

Video, sound, what is given of both, and text are one sequence, in which each token attends to all.
Its order is free, as positions are told: tokens that are modulated alike are next to each other,
and the text, whose padding is at the end, is last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.activation import swiglu
from multimodal_gen.runtime.layers.embedding import EmbeddingMLP, sinusoidal_embedding
from multimodal_gen.runtime.layers.joint_stream import BlockContext, within_fp16
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.modulation import add_groups_, modulate_groups_
from multimodal_gen.runtime.layers.norm import RMSNorm
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.rope import apply_rotary_to_part, shared_rotary_table
from multimodal_gen.runtime.models.dits.minimax_h3.config import MiniMaxH3Config

_VECTORS = 6  # shift, scale and gate of attention, then of the MLP
_KINDS = 3  # video, text and sound, whose tokens have vectors of their own
_VIDEO, _TEXT, _SOUND = range(_KINDS)
_ENDS = ("proj_out", "audio_out")


class Counts(NamedTuple):
    """Tokens of each kind, in the order of the sequence; the remaining ones are the prompt's."""

    video: int
    given: int
    """Pictures that stay as they are."""
    sound: int
    given_sound: int
    seen: int
    """Of the text: states of pictures that its encoder has seen."""


class Group(NamedTuple):
    """Tokens of this rank that follow each other and are modulated alike."""

    tokens: int
    vectors: int
    """Number of their vectors: 3 times that of their timestep, plus that of their kind."""


class MiniMaxH3Transformer(nn.Module):
    """Predicts the velocity towards the data. Create it on the meta device; fill it with
    `minimax_h3_key_map`."""

    keep_in_float32: ClassVar = ("x_embedder", "audio_embedder", "time_embedder", *_ENDS)
    keep_exact: ClassVar = ("*_embedder*", "out_modulation", *_ENDS)

    def __init__(self, config: MiniMaxH3Config, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.sequence = parts.sequence
        dim, time = config.hidden_size, config.time_embed_dim
        self.x_embedder = parts.linear(config.token_channels, dim)
        self.audio_embedder = parts.linear(config.audio_in_channels, dim)
        self.text_embedder = parts.linear(config.text_dim, dim)
        self.refiners = nn.ModuleList(
            MiniMaxH3Block(config, parts, modulated=False) for _ in range(config.num_refiner_layers)
        )
        self.text_norm = RMSNorm(dim, config.final_norm_eps)
        self.time_embedder = EmbeddingMLP(
            parts, config.freq_dim, time, hidden=config.time_embed_hidden_dim
        )
        self.blocks = nn.ModuleList(
            MiniMaxH3Block(config, parts, modulated=True) for _ in range(config.num_layers)
        )
        self.norm_out = RMSNorm(dim, config.final_norm_eps)
        self.out_modulation = parts.linear(time, 2 * dim)  # shift and scale
        self.proj_out = parts.linear(dim, config.token_channels)
        self.audio_out = parts.linear(dim, config.audio_in_channels)

    def forward(
        self,
        hidden_states: Tensor,
        audio_hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        timestep: Tensor,
        rotary: Tensor,
        text_rotary: Tensor,
        counts: Counts,
        lengths: Tensor | None = None,
        lora: LoraRows | None = None,
    ) -> Tensor:
        """Velocities [B, N]: the numbers of the video's tokens, then of the sound's.

        `hidden_states` [B, S, C] are tokens of the video and of given pictures,
        `audio_hidden_states` [B, A, D] of the sound and of given sound, and `encoder_hidden_states`
        [B, T, E] what was seen and then the prompt; of these the first `lengths` [B] per row are
        valid (None: all). `timestep` [B, K] is 1 for clean tokens: those of the video and of the
        sound and, where anything is given, of given pictures and of given sound. `rotary` and
        `text_rotary` are results of `rotary` for these tokens, in the same order.
        """
        media, length = counts[:4], encoder_hidden_states.shape[1]
        text = self._refined(encoder_hidden_states, lengths, lora)
        video = self.x_embedder(self.sequence.shard_each(hidden_states, media[:2]), lora)
        sound = self.audio_embedder(self.sequence.shard_each(audio_hidden_states, media[2:]), lora)
        x = torch.cat((video.to(text.dtype), sound.to(text.dtype), text), dim=1)
        tables = (self.sequence.shard_each(rotary, media), self.sequence.shard(text_rotary))
        table = torch.cat(tables, dim=1)[:, :, None, None]  # for queries and keys of all heads
        ends = None if lengths is None else lengths + sum(media)
        context = BlockContext(table, [n for n in (*media, length) if n], ends, lora)
        waves = sinusoidal_embedding(timestep.flatten(), self.config.freq_dim)
        waves = waves.view(*timestep.shape, self.config.freq_dim)
        time = F.silu(self.time_embedder(waves, lora)).to(text.dtype)
        groups = [*self._groups(counts, length)]
        for block in self.blocks:
            x = block(x, context, time, groups)
        return self._velocities(x, time, media, lora)

    def _refined(self, states: Tensor, lengths: Tensor | None, lora: LoraRows | None) -> Tensor:
        """This rank's tokens of the text, [B, T_local, dim]."""
        context = BlockContext(None, (states.shape[1],), lengths, lora)
        text: Tensor = self.text_embedder(self.sequence.shard(states), lora)
        for block in self.refiners:
            text = block(text, context)
        normed: Tensor = self.text_norm(text, lora)
        return normed

    def _groups(self, counts: Counts, length: int) -> Iterator[Group]:
        """Groups of this rank's tokens, in order, with `length` tokens of text."""
        share, text = self.sequence.share, self.sequence.share(length)
        seen = max(0, min(text.stop, counts.seen) - text.start)
        own = (*(len(share(count)) for count in counts[:4]), seen, len(text) - seen)
        times, kinds = (0, 2, 1, 3, 0, 0), (_VIDEO, _VIDEO, _SOUND, _SOUND, _VIDEO, _TEXT)
        for tokens, time, kind in zip(own, times, kinds, strict=True):
            if tokens:
                yield Group(tokens, time * _KINDS + kind)

    def _velocities(
        self, x: Tensor, time: Tensor, media: Sequence[int], lora: LoraRows | None
    ) -> Tensor:
        own = [len(self.sequence.share(count)) for count in media]
        shifts, scales = self.out_modulation(time, lora).split(x.shape[-1], dim=-1)
        scales = scales + 1
        made = self.norm_out(x[:, : sum(own[:3])], lora)
        found = []
        for i, at, project in ((0, 0, self.proj_out), (1, 2, self.audio_out)):
            part = made.narrow(1, sum(own[:at]), own[at])
            shown = torch.addcmul(shifts[:, i : i + 1], part, scales[:, i : i + 1])
            velocity = project(shown.to(project.dtype), lora)
            found.append(self.sequence.gather(velocity, media[at]).flatten(1))
        return torch.cat(found, dim=1)

    def rotary(self, positions: Tensor) -> Tensor:
        """Table [1, S, 3 * frequencies, 2] for positions [1, S, 3] in time, down and across."""
        return shared_rotary_table(positions, self.config.rope_freq_dim, self.config.rope_theta)


class MiniMaxH3Block(nn.Module):
    """Attention and MLP, each after a norm that the timestep modulates, but not in the refiner."""

    def __init__(self, config: MiniMaxH3Config, parts: Parts, *, modulated: bool) -> None:
        super().__init__()
        dim, inner, mlp = config.hidden_size, config.inner_dim, config.ffn_dim
        width = config.attention_head_dim
        self.parts = parts
        self.qk_eps = config.qk_norm_eps
        self.heads = (3, parts.heads(config.num_attention_heads), width)
        vectors = _KINDS * _VECTORS * dim
        self.modulation: Linear | None = (
            parts.linear(config.time_embed_dim, vectors) if modulated else None
        )
        self.norm1 = RMSNorm(dim, config.norm_eps)
        self.qkv = parts.column(dim, (inner, inner, inner), unit=width, bias=False)
        self.qk_norm = parts.qk_norm(width)
        self.attention_out = parts.row((inner,), dim, unit=width, bias=False)
        self.norm2 = RMSNorm(dim, config.norm_eps)
        self.mlp_in = parts.column(dim, (mlp, mlp), bias=False)
        self.mlp_out = parts.row((mlp,), dim, bias=False)

    def forward(
        self,
        x: Tensor,
        context: BlockContext,
        time: Tensor | None = None,
        groups: Sequence[Group] = (),
    ) -> Tensor:
        """Apply the block to x [B, S_local, dim], in place if it is modulated, as `time` [B, K,
        time_embed_dim] says."""
        lora = context.lora
        if self.modulation is None:
            x = x + self._attended(self.norm1(x, lora), context)
            return within_fp16(x + self._fed(self.norm2(x, lora), lora))
        assert time is not None
        vectors = self.modulation(time, lora).view(len(x), -1, 1, x.shape[-1])
        vectors[:, 1::3].add_(1)  # the scales
        every, counts = vectors.unbind(1), [group.tokens for group in groups]
        own = [every[group.vectors * _VECTORS :][:_VECTORS] for group in groups]
        h = self.norm1(x, lora)
        modulate_groups_(h, counts, [each[:2] for each in own])
        add_groups_(x, counts, [each[2] for each in own], self._attended(h, context))
        h = self.norm2(x, lora)
        modulate_groups_(h, counts, [each[3:5] for each in own])
        add_groups_(x, counts, [each[5] for each in own], self._fed(h, lora))
        return within_fp16(x)

    def _attended(self, x: Tensor, context: BlockContext) -> Tensor:
        qkv = self.qkv(x, context.lora).view(*x.shape[:2], *self.heads)
        attending = self.parts.attend(qkv[:, :, 2], context.streams, context.lengths)
        qk = self.qk_norm(qkv[:, :, :2], self.qk_eps, context.lora)
        attending.start(qk if context.rotary is None else apply_rotary_to_part(qk, context.rotary))
        out: Tensor = self.attention_out(attending.wait(), context.lora)
        return out

    def _fed(self, x: Tensor, lora: LoraRows | None) -> Tensor:
        out: Tensor = self.mlp_out(swiglu(self.mlp_in(x, lora), gate_last=True), lora)
        return out
