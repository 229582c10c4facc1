"""The MiniMax-H3 transformer, after diffusers' MiniMaxH3Transformer3DModel.

Video, sound, what is given of both, and text are one sequence. Its order is free, as positions are
told: tokens that are modulated alike are neighbours, and the text, which may be padded, is last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.embedding import EmbeddingMLP, sinusoidal_embedding
from multimodal_gen.runtime.layers.joint_stream import BlockContext, PlainStream, keep_within_fp16_
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.modulation import add_groups_, modulate_groups_
from multimodal_gen.runtime.layers.norm import RMSNorm
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.rope import shared_rotary_table
from multimodal_gen.runtime.models.dits.minimax_h3.config import MiniMaxH3Config

_VECTORS = 6  # shift, scale and gate of attention, then of the MLP
_VIDEO, _TEXT, _SOUND = range(_KINDS := 3)  # whose tokens have vectors of their own
_ENDS = ("proj_out", "audio_out")
Group = tuple[int, int]
"""Number of this rank's tokens that follow each other and are modulated alike, and the number of
their vectors: 3 times that of their timestep, plus that of their kind."""


class Counts(NamedTuple):
    """Tokens in the order of the sequence: what is given stays as it is, and of the text, some are
    states of pictures that its encoder has seen; the remaining ones are the prompt's."""

    video: int
    given: int
    sound: int
    given_sound: int
    seen: int


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
        refiners = range(config.num_refiner_layers)
        self.refiners = nn.ModuleList(PlainStream(parts, *config.block) for _ in refiners)
        self.text_norm = RMSNorm(dim, config.final_norm_eps)
        hidden = config.time_embed_hidden_dim
        self.time_embedder = EmbeddingMLP(parts, config.freq_dim, time, hidden=hidden)
        self.blocks = nn.ModuleList(MiniMaxH3Block(config, parts) for _ in range(config.num_layers))
        self.norm_out = RMSNorm(dim, config.final_norm_eps)
        self.out_modulation = parts.linear(time, 2 * dim)  # shift and scale
        self.proj_out = parts.linear(dim, config.token_channels)
        self.audio_out = parts.linear(dim, config.audio_in_channels)

    def forward(
        self,
        hidden_states: Tensor,
        audio_hidden_states: Tensor,
        text: Tensor,
        timestep: Tensor,
        rotary: Tensor,
        counts: Counts,
        lengths: Tensor | None = None,
        lora: LoraRows | None = None,
    ) -> Tensor:
        """Velocities [B, N]: the numbers of the video's tokens, then of the sound's.

        `hidden_states` [B, S, C] are tokens of the video and of given pictures,
        `audio_hidden_states` [B, A, D] of the sound and of given sound, and `text` the result of
        `refined` for T tokens, of which the first `lengths` [B] per row are valid (None: all).
        `timestep` [B, K] is 1 for clean tokens: those of the video and of the sound and, where
        anything is given, of given pictures and of given sound. `rotary` is the result of `rotary`
        for all S + A + T tokens, in this order.
        """
        media, length = counts[:4], rotary.shape[1] - sum(counts[:4])
        video = self.x_embedder(self.sequence.shard_each(hidden_states, media[:2]), lora)
        sound = self.audio_embedder(self.sequence.shard_each(audio_hidden_states, media[2:]), lora)
        x = torch.cat((video.to(text.dtype), sound.to(text.dtype), text), dim=1)
        table = self.sequence.shard_each(rotary, (*media, length))
        ends = None if lengths is None else lengths + sum(media)
        context = BlockContext(table, [n for n in (*media, length) if n], ends, lora)
        waves = sinusoidal_embedding(timestep.flatten(), self.config.freq_dim)
        time = F.silu(self.time_embedder(waves, lora)).to(text.dtype)
        times = time.unflatten(0, timestep.shape)
        groups = self._groups(counts, length)
        for block in self.blocks:
            x = block(x, context, times, groups)
        return self._velocities(x, time, media, lora)

    def refined(self, states: Tensor, lengths: Tensor | None, lora: LoraRows | None) -> Tensor:
        """This rank's tokens [B, T_local, dim] of what was seen and of the prompt [B, T, E]."""
        context = BlockContext(None, (states.shape[1],), lengths, lora)
        text: Tensor = self.text_embedder(self.sequence.shard(states), lora)
        for block in self.refiners:
            text = block(text, context)
        normed: Tensor = self.text_norm(text, lora)
        return normed

    def _groups(self, counts: Counts, length: int) -> list[Group]:
        """Groups of this rank's tokens, in order, with `length` tokens of text."""
        share, text = self.sequence.share, self.sequence.share(length)
        seen = max(0, min(text.stop, counts.seen) - text.start)
        own = (*(len(share(count)) for count in counts[:4]), seen, len(text) - seen)
        times, kinds = (0, 2, 1, 3, 0, 0), (_VIDEO, _VIDEO, _SOUND, _SOUND, _VIDEO, _TEXT)
        numbers = (time * _KINDS + kind for time, kind in zip(times, kinds, strict=True))
        return [(count, number) for count, number in zip(own, numbers, strict=True) if count]

    def _velocities(
        self, x: Tensor, time: Tensor, media: Sequence[int], lora: LoraRows | None
    ) -> Tensor:
        own = [len(self.sequence.share(count)) for count in media]
        vectors = self.out_modulation(time, lora).view(len(x), -1, 1, x.shape[-1])
        vectors[:, 1::2].add_(1)  # the scales
        shift, scale, sound_shift, sound_scale, *_ = vectors.unbind(1)
        video, _, sound = self.norm_out(x[:, : sum(own[:3])], lora).split(own[:3], dim=1)
        shown = torch.addcmul(shift, video, scale), torch.addcmul(sound_shift, sound, sound_scale)
        found = []
        for part, at, project in zip(shown, (0, 2), (self.proj_out, self.audio_out), strict=True):
            velocity = project(part.to(project.dtype), lora)
            found.append(self.sequence.gather(velocity, media[at]).flatten(1))
        return torch.cat(found, dim=1)

    def rotary(self, positions: Tensor) -> Tensor:
        """Table [1, S, 1, 1, 2, 6 * frequencies] of positions [1, S, 3]: time, down, across."""
        table = shared_rotary_table(positions, self.config.rope_freq_dim, self.config.rope_theta)
        return table[:, :, None, None]


class MiniMaxH3Block(PlainStream):
    """A block whose norms and results the timestep modulates."""

    rotary_by_row: ClassVar = True
    """Each row has a rotary table of its own: times follow from the length of its text."""

    def __init__(self, config: MiniMaxH3Config, parts: Parts) -> None:
        super().__init__(parts, *config.block)
        vectors = _KINDS * _VECTORS * config.hidden_size
        self.modulation = parts.linear(config.time_embed_dim, vectors)

    def forward(
        self,
        x: Tensor,
        context: BlockContext,
        time: Tensor | None = None,
        groups: Sequence[Group] = (),
    ) -> Tensor:
        """Apply the block by `time` [B, K, E] to x [B, S_local, dim] in place, by its groups."""
        assert time is not None
        lora = context.lora
        number = _KINDS * _VECTORS * time.shape[1]
        vectors = self.modulation(time.flatten(0, 1), lora).view(len(x), number, 1, x.shape[-1])
        vectors[:, 1::3].add_(1)  # the scales
        every, counts = vectors.unbind(1), [count for count, _ in groups]
        tokens = x.split(counts, dim=1)
        own = [every[number * _VECTORS :][:_VECTORS] for _, number in groups]
        h = self.norm1(x, lora)
        modulate_groups_(h, counts, [each[:2] for each in own])
        add_groups_(tokens, [each[2] for each in own], self.attended(h, context))
        h = self.norm2(x, lora)
        modulate_groups_(h, counts, [each[3:5] for each in own])
        add_groups_(tokens, [each[5] for each in own], self.fed(h, lora))
        return keep_within_fp16_(x)
