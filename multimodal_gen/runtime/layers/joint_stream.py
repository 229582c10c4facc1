"""Token streams with separate weights and joint attention (Esser et al. 2024, MMDiT)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.distributed.local_attention import Prefix
from multimodal_gen.runtime.distributed.sequence import Attending
from multimodal_gen.runtime.layers.activation import gelu_tanh, swiglu
from multimodal_gen.runtime.layers.emphasis import Emphasised, widened
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.modulation import (
    gated_add,
    gated_add_and_norm,
    modulated_norm,
)
from multimodal_gen.runtime.layers.norm import HeadNorms, RMSNorm
from multimodal_gen.runtime.layers.parts import Parts
from multimodal_gen.runtime.layers.rope import apply_rotary, rotate_part_

_FP16_MAX = torch.finfo(torch.float16).max


class BlockContext(NamedTuple):
    """Arguments shared by all blocks of an evaluation.

    `rotary` [S_local, D / 2, 2], `streams` and `lengths` (see `SequenceParallel.attend`) follow the
    order in which the streams are joined. `emphasis` is the result of `emphasis_of` for this rank's
    tokens, `prefix` a block's own; there is at most one of the two.
    """

    rotary: Tensor | None
    streams: Sequence[int]
    lengths: Tensor | None = None
    lora: LoraRows | None = None
    emphasis: Tensor | None = None
    prefix: Prefix | None = None
    unrotated: Callable[[Tensor], None] | None = None
    """Is given normalised queries and keys [B, S_local, 2, H, D] in float32, before they are
    rotated."""


class AttendedStream(nn.Module):
    """Weights of a stream that is only attended to: a modulated norm and projections.

    Its modulation starts with shift and scale [B, 1 or S, dim]; 1 has been added to the scale.
    """

    eps = 1e-6
    """Epsilon of all norms."""
    bias: ClassVar = True
    """Bias in the linear layers."""

    def __init__(self, parts: Parts, dim: int, heads: int, *, qk_norm: bool = True) -> None:
        super().__init__()
        width = dim // heads
        self.heads = (3, parts.heads(heads), width)
        self.qkv = parts.column(dim, (dim, dim, dim), unit=width, bias=self.bias)
        self.qk_norm = parts.qk_norm(width) if qk_norm else None

    def project(self, x: Tensor, modulation: Sequence[Tensor], lora: LoraRows | None) -> Tensor:
        """Queries, keys and values, [B, S, 3, H, D]."""
        shift, scale = modulation[:2]
        projected: Tensor = self.qkv(modulated_norm(x, shift, scale, self.eps), lora)
        return projected.view(*projected.shape[:2], *self.heads)


class AttendingStream(AttendedStream):
    """A stream that also receives the attention's output; its modulation continues with a gate."""

    def __init__(self, parts: Parts, dim: int, heads: int, *, qk_norm: bool = True) -> None:
        super().__init__(parts, dim, heads, qk_norm=qk_norm)
        self.attention_out = parts.row((dim,), dim, unit=dim // heads, bias=self.bias)

    def attend(
        self, x: Tensor, attended: Tensor, modulation: Sequence[Tensor], lora: LoraRows | None
    ) -> Tensor:
        """Add the attention's output [B, S, dim]."""
        return gated_add(x, modulation[2], self.attention_out(attended, lora))


class JointStream(AttendingStream):
    """A stream with an MLP; its modulation continues with the MLP's shift, scale and gate."""

    widening: ClassVar = 1
    """Input features of `activate` per output feature."""

    def __init__(
        self, parts: Parts, dim: int, heads: int, mlp_dim: int, *, qk_norm: bool = True
    ) -> None:
        super().__init__(parts, dim, heads, qk_norm=qk_norm)
        self.mlp_in = parts.column(dim, (mlp_dim,) * self.widening, bias=self.bias)
        self.mlp_out = parts.row((mlp_dim,), dim, bias=self.bias)

    def feed(self, x: Tensor, modulation: Sequence[Tensor], lora: LoraRows | None) -> Tensor:
        """Add the MLP."""
        shift, scale, gate = modulation[3:6]
        return gated_add(x, gate, self._fed(modulated_norm(x, shift, scale, self.eps), lora))

    def _fed(self, x: Tensor, lora: LoraRows | None) -> Tensor:
        fed: Tensor = self.mlp_out(self.activate(self.mlp_in(x, lora)), lora)
        return fed

    def activate(self, hidden: Tensor) -> Tensor:
        return gelu_tanh(hidden)

    def update(
        self, x: Tensor, attended: Tensor, modulation: Sequence[Tensor], lora: LoraRows | None
    ) -> Tensor:
        """Add the attention's output [B, S, dim], then the MLP."""
        gate, shift, scale, mlp_gate = modulation[2:6]
        update = self.attention_out(attended, lora)
        x, normalised = gated_add_and_norm(x, gate, update, shift, scale, self.eps)
        return gated_add(x, mlp_gate, self._fed(normalised, lora))


AttendedInput = tuple[AttendedStream, Tensor, Sequence[Tensor]]
"""A stream's weights, this rank's tokens [B, S_local, dim], and its modulation."""


class StreamInput(NamedTuple):
    """One stream of a block: its weights, this rank's tokens [B, S_local, dim], its modulation."""

    weights: JointStream
    tokens: Tensor
    modulation: Sequence[Tensor]


def joint_block(parts: Parts, inputs: Sequence[StreamInput], context: BlockContext) -> list[Tensor]:
    """Tokens of the streams after a block with joint attention, in the order of `inputs`."""
    lora = context.lora
    attended = joint_attention(parts, inputs, context)
    counts = [each.tokens.shape[1] for each in inputs]
    return [
        each.weights.update(each.tokens, part, each.modulation, lora)
        for each, part in zip(inputs, apart(attended, counts), strict=True)
    ]


def apart(attended: Tensor, counts: Sequence[int]) -> Sequence[Tensor]:
    """Parts of attention's output [B, S, dim], of so many tokens each."""
    parts = attended.split_with_sizes(list(counts), dim=1)
    if torch.compiler.is_compiling():  # views would tie a graph to one row, or to several
        return [part.clone(memory_format=torch.contiguous_format) for part in parts]
    return parts


def joint_attention(parts: Parts, inputs: Sequence[AttendedInput], context: BlockContext) -> Tensor:
    """Attention of the streams' tokens to those of all, [B, S_local, H * D].

    Each stream has its own weights and modulation. Either all have a `qk_norm` or none.
    """
    lora = context.lora
    projected = [weights.project(tokens, vectors, lora) for weights, tokens, vectors in inputs]
    counts = [part.shape[1] for part in projected]
    norms = [weights.qk_norm for weights, _, _ in inputs if weights.qk_norm is not None]
    qkv = projected[0] if len(projected) == 1 else torch.cat(projected, dim=1)
    norm = HeadNorms(norms, counts, inputs[0][0].eps, lora) if norms else None
    return start_attention(parts, qkv, norm, context).wait()


class PlainStream(nn.Module):
    """A block with one stream: attention, then a gated MLP whose gate is last, each after an RMS
    norm. Its heads may be wider or narrower together than a token."""

    def __init__(self, parts: Parts, sizes: Sequence[int], eps: tuple[float, float]) -> None:
        """`sizes` are the width of a token, heads, and the widths of a head and of the MLP; `eps`
        is of the norms of tokens, and of queries and keys."""
        super().__init__()
        dim, heads, width, mlp = sizes
        inner = heads * width
        self.parts = parts
        self.heads = (3, parts.heads(heads), width)
        self.norm1 = RMSNorm(dim, eps[0])
        self.qkv = parts.column(dim, (inner, inner, inner), unit=width, bias=False)
        self.qk_norm = parts.qk_norm(width)
        self.qk_eps = eps[1]
        self.attention_out = parts.row((inner,), dim, unit=width, bias=False)
        self.norm2 = RMSNorm(dim, eps[0])
        self.mlp_in = parts.column(dim, (mlp, mlp), bias=False)
        self.mlp_out = parts.row((mlp,), dim, bias=False)

    def forward(self, x: Tensor, context: BlockContext) -> Tensor:
        """Apply the block to x [B, S_local, dim]."""
        x = x + self.attended(self.norm1(x, context.lora), context)
        return within_fp16(x + self.fed(self.norm2(x, context.lora), context.lora))

    def attended(self, x: Tensor, context: BlockContext) -> Tensor:
        """Attention of x; the rotary table is one of `rotate_part_`, for a part of each head."""
        qkv = self.qkv(x, context.lora).view(*x.shape[:2], *self.heads)

        def norm(qk: Tensor) -> Tensor:
            normed: Tensor = self.qk_norm(qk, self.qk_eps, context.lora)
            if context.rotary is not None:
                rotate_part_(normed, context.rotary)
            return normed

        attending = start_attention(self.parts, qkv, norm, context._replace(rotary=None))
        out: Tensor = self.attention_out(attending.wait(), context.lora)
        return out

    def fed(self, x: Tensor, lora: LoraRows | None) -> Tensor:
        """The MLP of x."""
        out: Tensor = self.mlp_out(swiglu(self.mlp_in(x, lora), gate_last=True), lora)
        return out


def start_attention(
    parts: Parts, qkv: Tensor, norm: Callable[[Tensor], Tensor] | None, context: BlockContext
) -> Attending:
    """Start the attention of queries, keys and values [B, S_local, 3, H, D].

    Values travel while `norm` is applied to queries and keys [B, S_local, 2, H, D], with a result
    in float32, and they are rotated unless `context.rotary` is None. Those travel while the caller
    does what else there is to do, before it waits for the result.
    """
    values, emphasis = qkv[:, :, 2], context.emphasis
    if emphasis is not None:
        values = widened(values)
    attending = parts.attend(values, context.streams, context.lengths, context.prefix)
    if emphasis is not None:
        attending = Emphasised(attending, emphasis, qkv.shape[-1])
    attending.start(_prepared(qkv[:, :, :2], norm, context))
    return attending


def _prepared(qk: Tensor, norm: Callable[[Tensor], Tensor] | None, context: BlockContext) -> Tensor:
    """Queries and keys [B, S_local, 2, H, D], normalised and rotated."""
    if isinstance(norm, HeadNorms) and context.unrotated is None:
        fused = norm.fused(qk, context.rotary)
        if fused is not None:
            return fused
    if norm is not None:
        qk = norm(qk)
    if context.unrotated is not None:
        context.unrotated(qk)
    return qk if context.rotary is None else apply_rotary(qk, context.rotary)


def within_fp16(x: Tensor) -> Tensor:
    """Clamp float16 overflows to the largest number, as the references do."""
    return x.clip(-_FP16_MAX, _FP16_MAX) if x.dtype == torch.float16 else x


def keep_within_fp16_(x: Tensor) -> Tensor:
    """The same in place."""
    return x.clip_(-_FP16_MAX, _FP16_MAX) if x.dtype == torch.float16 else x
