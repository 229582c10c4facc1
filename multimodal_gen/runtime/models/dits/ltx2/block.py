"""A block of the LTX-2 transformer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.activation import gelu_tanh
from multimodal_gen.runtime.layers.elementwise import VectorTable
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.modulation import by_group, gated_add, modulated_rms_norm
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.rope import apply_rotary, apply_rotary_in_halves
from multimodal_gen.runtime.models.dits.ltx2.config import LTX2Config, StreamName, StreamSizes
from multimodal_gen.runtime.models.dits.ltx2.rotary import StreamTables

_EXCHANGE = 5  # scale and shift to read the other stream, the same to be read, and a gate
_QK_EPS = 1e-6


class StreamVectors(NamedTuple):
    """Modulation of one stream's tokens in all blocks; 1 has been added to the scales."""

    counts: list[int]
    """Number of this rank's tokens in each of G groups, which have timesteps of their own."""
    embedded: Tensor
    """Embedded timesteps, [B, G, dim]."""
    own: Tensor
    """[B, G, N, dim]."""
    exchange: Tensor
    """[B, 1, 5, dim]."""
    prompt: Tensor | None
    """Shift and scale of the text, [B, 1, 2, dim], in models that modulate it."""


class StreamsContext(NamedTuple):
    """Arguments shared by all blocks."""

    tokens: int
    """Tokens of the video, of all ranks."""
    tables: StreamTables
    perturbed: Tensor | None
    """1 for rows that skip a self-attention, else 0: [B, 1, 1]."""
    connected: Tensor | None
    """0 for rows whose streams do not attend to each other, else 1: [B, 1, 1]."""
    lora: LoraRows | None


class LTX2Block(nn.Module):
    """Both streams, each by itself, and their attention to each other."""

    def __init__(self, config: LTX2Config, parts: Parts) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.video = OneStream(config, parts, "video")
        self.audio = OneStream(config, parts, "audio")
        video, audio = config.stream("video"), config.stream("audio")
        self.from_audio = OtherAttention(config, parts, audio, video.dim, audio.dim, video.gated)
        self.from_video = OtherAttention(config, parts, audio, audio.dim, video.dim, audio.gated)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        texts: tuple[Tensor, Tensor],
        of_video: StreamVectors,
        of_audio: StreamVectors,
        context: StreamsContext,
        *,
        skips: bool,
    ) -> tuple[Tensor, Tensor]:
        """Apply the block to the video's tokens x [B, S_local, dim] and the sound's y [B, S_audio,
        dim]. `skips` says that perturbed rows skip its self-attention."""
        lora = context.lora
        mine, theirs = (
            (stream.modulation(lora) + vectors.own).unbind(2)
            for stream, vectors in ((self.video, of_video), (self.audio, of_audio))
        )
        x = self.video.attend(x, texts[0], mine, of_video, context, skips=skips)
        y = self.audio.attend(y, texts[1], theirs, of_audio, context, skips=skips)
        x, y = self._exchange(x, y, of_video, of_audio, context)
        return (
            self.video.feed(x, mine, of_video.counts, lora),
            self.audio.feed(y, theirs, of_audio.counts, lora),
        )

    def _exchange(
        self,
        x: Tensor,
        y: Tensor,
        of_video: StreamVectors,
        of_audio: StreamVectors,
        context: StreamsContext,
    ) -> tuple[Tensor, Tensor]:
        lora, (_, _, video_table, audio_table) = context.lora, context.tables
        video = (self.video.exchange(lora) + of_video.exchange).unbind(2)
        audio = (self.audio.exchange(lora) + of_audio.exchange).unbind(2)
        seen_x, seen_y = rms(x, self.eps), rms(y, self.eps)

        def modulated(tokens: Tensor, vectors: tuple[Tensor, ...], at: int) -> Tensor:
            return torch.addcmul(vectors[at + 1], tokens, vectors[at])

        to_video = self.from_audio(
            modulated(seen_x, video, 0),
            modulated(seen_y, audio, 0),
            lora,
            (video_table, audio_table),
        )
        to_audio = self.from_video(
            modulated(seen_y, audio, 2),
            modulated(seen_x, video, 2),
            lora,
            (audio_table, video_table),
            shared=True,
        )
        gates = (video[4], audio[4])
        if context.connected is not None:
            gates = (gates[0] * context.connected, gates[1] * context.connected)
        return gated_add(x, gates[0], to_video), gated_add(y, gates[1], to_audio)


class OneStream(nn.Module):
    """One stream by itself: attention to itself and to its text, and an MLP."""

    def __init__(self, config: LTX2Config, parts: Parts, stream: StreamName) -> None:
        super().__init__()
        sizes = config.stream(stream)
        dim, width = sizes.dim, sizes.width
        self.parts = parts
        self.eps = config.norm_eps
        self.is_shared = stream == "video"
        self.heads = (parts.heads(sizes.heads), width)
        self.rotate = rotation(config, width)
        self.modulation = VectorTable(config.vectors, dim)
        self.exchange = VectorTable(_EXCHANGE, dim)
        self.prompt = VectorTable(2, dim) if config.cross_attn_mod else None
        gates = (sizes.heads,) if sizes.gated else ()
        units = (width,) * 3 + (1,) * len(gates)
        self.qkv = parts.column(dim, (dim, dim, dim, *gates), unit=units)
        self.qk_norm = parts.qk_norm(dim, unit=width)
        self.attention_out = parts.row((dim,), dim, unit=width)
        self.text = OtherAttention(config, parts, sizes, dim, sizes.seen, sizes.gated)
        self.mlp_in = parts.column(dim, (4 * dim,))
        self.mlp_out = parts.row((4 * dim,), dim)

    def attend(
        self,
        x: Tensor,
        text: Tensor,
        own: Sequence[Tensor],
        vectors: StreamVectors,
        context: StreamsContext,
        *,
        skips: bool,
    ) -> Tensor:
        """Add attention to the stream and to its text; `own` are the block's vectors, each [B, G,
        dim]."""
        lora, counts = context.lora, vectors.counts
        attended = self._attend(self._modulated(x, own[:2], counts), context, skips=skips)
        x = _gated(x, own[2], self.attention_out(attended, lora), counts)
        if self.prompt is None or vectors.prompt is None:
            seen: Tensor = self.text(rms(x, self.eps), text, lora)
            return x + seen
        shift, scale = (self.prompt(lora) + vectors.prompt).unbind(2)
        text = torch.addcmul(shift, text, scale)
        seen = self.text(self._modulated(x, own[6:8], counts), text, lora)
        return _gated(x, own[8], seen, counts)

    def feed(
        self, x: Tensor, own: Sequence[Tensor], counts: list[int], lora: LoraRows | None
    ) -> Tensor:
        """Add the MLP."""
        hidden = gelu_tanh(self.mlp_in(self._modulated(x, own[3:5], counts), lora))
        return _gated(x, own[5], self.mlp_out(hidden, lora), counts)

    def _modulated(self, x: Tensor, vectors: Sequence[Tensor], counts: list[int]) -> Tensor:
        """Norm of x, with these vectors as shift and scale."""
        return by_group(
            lambda part, shift, scale: modulated_rms_norm(part, shift, scale, self.eps),
            counts,
            (x,),
            vectors,
        )

    def _attend(self, x: Tensor, context: StreamsContext, *, skips: bool) -> Tensor:
        """Attention of the stream to itself, [B, S, H * D]."""
        features = self.heads[0] * self.heads[1]
        projected, logits = _without_logits(self.qkv(x, context.lora), 3 * features)
        qkv = projected.unflatten(2, (3, 1, features))
        value = qkv[:, :, 2, 0].unflatten(2, self.heads)
        table = context.tables.video if self.is_shared else context.tables.audio
        attending = (
            self.parts.attend(value, (context.tokens,)) if self.is_shared else None
        )  # so that values travel meanwhile
        qk = self.rotate(self.qk_norm(qkv[:, :, :2], _QK_EPS, context.lora), table)
        qk = qk.view(*qk.shape[:3], *self.heads)
        if attending is not None:
            attending.start(qk)
            attended = attending.wait()
        else:
            q, k = qk.to(value.dtype).unbind(2)
            attended = self.parts.cross_attention(q, k, value).flatten(2)
        if skips and context.perturbed is not None:
            attended = torch.lerp(attended, qkv[:, :, 2, 0], context.perturbed)
        return _with_gates(attended, logits, self.heads)


class OtherAttention(nn.Module):
    """Attention of one kind of token to another."""

    def __init__(
        self,
        config: LTX2Config,
        parts: Parts,
        sizes: StreamSizes,
        dim: int,
        seen: int,
        gated: bool,
    ) -> None:
        """Tokens of width `dim` attend to those of width `seen`, with the heads of `sizes`."""
        super().__init__()
        inner, width = sizes.dim, sizes.width
        self.parts = parts
        self.heads = (parts.heads(sizes.heads), width)
        self.rotate = rotation(config, width)
        gates = (sizes.heads,) if gated else ()
        self.q = parts.column(dim, (inner, *gates), unit=(width, *(1 for _ in gates)))
        self.norm_q = parts.norm(inner, _QK_EPS, unit=width)
        self.kv = parts.column(seen, (inner, inner), unit=width)
        self.norm_k = parts.norm(inner, _QK_EPS, unit=width)
        self.out = parts.row((inner,), dim, unit=width)

    def forward(
        self,
        x: Tensor,
        seen: Tensor,
        lora: LoraRows | None,
        tables: tuple[Tensor, Tensor] | None = None,
        *,
        shared: bool = False,
    ) -> Tensor:
        """Result for x [B, S, dim] and `seen` [B, T, seen]; `tables` rotate the queries and the
        keys. `shared`: this rank has a share of `seen`, and all of x."""
        q, logits = _without_logits(self.q(x, lora), self.heads[0] * self.heads[1])
        q = self.norm_q(q, lora)
        k, v = self.kv(seen, lora).chunk(2, dim=-1)
        k = self.norm_k(k, lora)
        if tables is not None:
            q, k = (
                self.rotate(each.float(), table).to(v.dtype)
                for each, table in zip((q, k), tables, strict=True)
            )
        q, k, v = (each.unflatten(2, self.heads) for each in (q, k, v))
        attend = self.parts.attention_to_shares if shared else self.parts.cross_attention
        attended = attend(q, k, v).flatten(2)
        result: Tensor = self.out(_with_gates(attended, logits, self.heads), lora)
        return result


def rotation(config: LTX2Config, width: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Function that rotates tokens x [B, S, ..., H * D] in float32 by a table [S, H * D / 2, 2].

    Pairs may change places, the same for queries and keys: products of the two are the same."""
    if config.rope_type == "interleaved":
        return apply_rotary
    return lambda x, table: apply_rotary_in_halves(x, table, width)


def rms(x: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], None, eps)


def _gated(x: Tensor, gate: Tensor, update: Tensor, counts: list[int]) -> Tensor:
    """x + gate * update, with gates [B, G, dim] for `counts` tokens each."""
    return by_group(
        lambda tokens, added, by: gated_add(tokens, by, added), counts, (x, update), (gate,)
    )


def _without_logits(projected: Tensor, features: int) -> tuple[Tensor, Tensor | None]:
    """Split off the logits of gates, which models without gates don't have."""
    if projected.shape[-1] == features:
        return projected, None
    return projected[..., :features], projected[..., features:]


def _with_gates(attended: Tensor, logits: Tensor | None, heads: tuple[int, int]) -> Tensor:
    """Multiply each head's output [B, S, H * D] by its gate, which is 1 for a logit [B, S, H] of
    0."""
    if logits is None:
        return attended
    by_head: Tensor = attended.unflatten(2, heads)
    return (by_head * torch.sigmoid(logits).mul_(2).unsqueeze(-1)).flatten(2)
