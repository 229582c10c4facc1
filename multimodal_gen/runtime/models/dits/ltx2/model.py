"""The LTX-2 transformer (arXiv:2601.03233), after Lightricks/LTX-2 and diffusers'
LTX2VideoTransformer3DModel.

Video and sound are two streams with separate weights. In every block each attends to itself and to
its text, then the two attend to each other. Ranks share the tokens of the video; those of the
sound, which are few, are on all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.activation import gelu_tanh
from multimodal_gen.runtime.layers.elementwise import VectorTable
from multimodal_gen.runtime.layers.embedding import (
    EmbeddingMLP,
    sinusoidal_embedding,
)
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.modulation import by_group, modulated_norm
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.rope import RotaryTables
from multimodal_gen.runtime.models.dits.ltx2.block import LTX2Block, StreamsContext, StreamVectors
from multimodal_gen.runtime.models.dits.ltx2.config import LTX2Config, StreamName
from multimodal_gen.runtime.models.dits.ltx2.rotary import (
    StreamTables,
    VideoGrid,
    audio_positions,
    stream_tables,
    video_positions,
)

_EXCHANGED = 4  # scale and shift for reading the other stream, then for being read
_OUT_EPS = 1e-6
_WAVES = 256


class Waves(NamedTuple):
    """Sines and cosines of timesteps that video and sound share, [B, 1, 256]."""

    common: Tensor
    gates: Tensor
    """Of the gates' timesteps, which models may scale."""


class LTX2Transformer(nn.Module):
    """Predicts the flow's velocity. Create it on the meta device; fill it with `ltx2_key_map`."""

    keep_exact: ClassVar = ("*embedder*", "*.linear", "*proj_in", "*proj_out")

    def __init__(self, config: LTX2Config, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.parts = parts
        self.video = StreamEnds(config, parts, "video")
        self.audio = StreamEnds(config, parts, "audio")
        self.blocks = nn.ModuleList(LTX2Block(config, parts) for _ in range(config.num_layers))
        self._rotary_tables: RotaryTables[StreamTables] = RotaryTables(kept=4)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        sigma: Tensor,
        encoder_hidden_states: Tensor,
        audio_encoder_hidden_states: Tensor,
        rotary: Sequence[Tensor],
        grid: VideoGrid,
        audio_tokens: int,
        perturbed: Tensor | None = None,
        isolated: Tensor | None = None,
        lora: LoraRows | None = None,
    ) -> Tensor:
        """Velocity [B, S, C] for the latents of a video and its sound, [B, S, C]: the tokens of
        `grid`, then `audio_tokens`.

        `timestep` is [B, G] in 0..1000: of all the video's tokens, or of each of `grid.counts`;
        `sigma` [B] is that of the sound. The text for each stream is [B, T, D]; `rotary` is the
        result of `rotary` for these tokens. `perturbed` [B] marks rows that skip a self-attention,
        and `isolated` [B] those whose streams do not attend to each other: 1, for others 0.
        """
        sequence, tokens = self.parts.sequence, hidden_states.shape[1] - audio_tokens
        whole = grid.counts if timestep.shape[1] > 1 else (tokens,)
        counts = _local_counts(whole, sequence.share(tokens))
        video, audio = hidden_states.split((tokens, audio_tokens), dim=1)
        context = StreamsContext(
            tokens,
            StreamTables(*rotary),
            None if perturbed is None else perturbed[:, None, None],
            None if isolated is None else (1 - isolated)[:, None, None],
            lora,
        )
        waves = self._common_waves(sigma[:, None])
        own = waves.common if timestep.shape[1] == 1 else _waves(timestep, waves.common.dtype)
        of_video = self.video.vectors(waves, own, counts, lora)
        of_audio = self.audio.vectors(waves, waves.common, [audio_tokens], lora)
        x = self.video.proj_in(sequence.shard(video), lora)
        y = self.audio.proj_in(audio, lora)
        texts = (
            self.video.text(encoder_hidden_states, lora),
            self.audio.text(audio_encoder_hidden_states, lora),
        )
        for i, block in enumerate(self.blocks):
            skips = i == self.config.skipping_block
            x, y = block(x, y, texts, of_video, of_audio, context, skips=skips)
        x = sequence.gather(self.video.output(x, of_video, lora), tokens)
        return torch.cat((x, self.audio.output(y, of_audio, lora)), dim=1)

    def _common_waves(self, sigma: Tensor) -> Waves:
        config, dtype = self.config, self.video.proj_in.dtype
        common = _waves(sigma, dtype)
        ratio = config.cross_attn_timestep_scale_multiplier / config.timestep_scale_multiplier
        return Waves(common, common if ratio == 1 else _waves(sigma * ratio, dtype))

    def rotary(self, grid: VideoGrid, audio_tokens: int) -> StreamTables:
        """Tables for a video and its sound."""
        device = self.video.proj_in.device

        def make() -> StreamTables:
            config, parts = self.config, self.parts
            video = stream_tables(config, "video", video_positions(config, grid, device))
            audio = stream_tables(config, "audio", audio_positions(config, audio_tokens, device))
            shares = [parts.sequence.shard(table, 0) for table in video]
            own = self._own_heads("video"), self._own_heads("audio")
            return StreamTables(
                shares[0][:, own[0]], audio[0][:, own[1]], shares[1][:, own[1]], audio[1][:, own[1]]
            )

        return self._rotary_tables.get((grid, audio_tokens, device), make)

    def _own_heads(self, stream: StreamName) -> slice:
        """Pairs of a token that belong to this rank's heads."""
        sizes = self.config.stream(stream)
        own = self.parts.head_range(sizes.heads)
        return slice(own.start * sizes.width // 2, own.stop * sizes.width // 2)


class StreamEnds(nn.Module):
    """Layers that precede and follow the blocks in one stream."""

    def __init__(self, config: LTX2Config, parts: Parts, stream: StreamName) -> None:
        super().__init__()
        sizes = config.stream(stream)
        self.proj_in = parts.linear(sizes.channels, sizes.dim)
        self.time = TimeModulation(parts, sizes.dim, config.vectors)
        self.exchange = TimeModulation(parts, sizes.dim, _EXCHANGED)
        self.exchange_gate = TimeModulation(parts, sizes.dim, 1)
        self.prompt = TimeModulation(parts, sizes.dim, 2) if config.cross_attn_mod else None
        captions = config.use_prompt_embeddings
        self.text_embedder = (
            EmbeddingMLP(parts, config.caption_channels, sizes.dim, activation=gelu_tanh)
            if captions
            else None
        )
        self.out_modulation = VectorTable(2, sizes.dim)  # shift and scale
        self.proj_out = parts.linear(sizes.dim, sizes.channels)

    def text(self, states: Tensor, lora: LoraRows | None) -> Tensor:
        return states if self.text_embedder is None else self.text_embedder(states, lora)

    def vectors(
        self, waves: Waves, own: Tensor, counts: list[int], lora: LoraRows | None
    ) -> StreamVectors:
        """Modulation of all blocks, for the embedded timesteps `own` [B, G, 256] of the stream; 1
        has been added to the scales."""
        embedded, vectors = self.time(own, lora)
        _, exchanged = self.exchange(waves.common, lora)
        _, gate = self.exchange_gate(waves.gates, lora)
        prompt = None if self.prompt is None else self.prompt(waves.common, lora)[1]
        return StreamVectors(
            counts,
            embedded,
            _added(vectors, 1, 3),
            torch.cat((_added(exchanged, 0, 2), gate), dim=2),
            None if prompt is None else _added(prompt, 1, 2),
        )

    def output(self, x: Tensor, vectors: StreamVectors, lora: LoraRows | None) -> Tensor:
        """Velocity of the stream's tokens [B, S, dim]."""
        table = self.out_modulation(lora) + vectors.embedded.unsqueeze(2)  # [B, G, 2, dim]
        shift, scale = table.unbind(2)

        def modulated(a: Tensor, b: Tensor, by: Tensor) -> Tensor:
            return modulated_norm(a, b, by, _OUT_EPS)

        velocity: Tensor = self.proj_out(
            by_group(modulated, vectors.counts, (x,), (shift, scale + 1)), lora
        )
        return velocity


class TimeModulation(nn.Module):
    """Embeds timesteps, and makes modulation vectors of them."""

    def __init__(self, parts: Parts, dim: int, vectors: int) -> None:
        super().__init__()
        self.embedder = EmbeddingMLP(parts, _WAVES, dim)
        self.linear = parts.linear(dim, vectors * dim)
        self._shape = (vectors, dim)

    def forward(self, waves: Tensor, lora: LoraRows | None) -> tuple[Tensor, Tensor]:
        """Embedded timesteps [B, G, dim], and vectors [B, G, N, dim], for `waves` [B, G, 256]."""
        embedded = self.embedder(waves, lora)
        return embedded, self.linear(F.silu(embedded), lora).unflatten(-1, self._shape)


def _waves(timestep: Tensor, dtype: torch.dtype) -> Tensor:
    """Sines and cosines [B, G, 256] of timesteps [B, G]."""
    waves = sinusoidal_embedding(timestep.flatten(), _WAVES).to(dtype)
    return waves.view(*timestep.shape, _WAVES)


def _added(vectors: Tensor, first: int, step: int) -> Tensor:
    """Vectors [B, G, N, dim] with 1 added to each `step`-th of them, in place."""
    vectors[:, :, first::step].add_(1)
    return vectors


def _local_counts(whole: tuple[int, ...], share: range) -> list[int]:
    """Tokens of each of the groups, one after the other, that lie in `share`."""
    starts = [sum(whole[:i]) for i in range(len(whole))]
    return [
        max(0, min(share.stop, start + count) - max(share.start, start))
        for start, count in zip(starts, whole, strict=True)
    ]
