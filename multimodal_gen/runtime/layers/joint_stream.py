"""Streams of tokens with weights of their own that attend jointly (Esser et al. 2024, MMDiT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.distributed.ulysses import SequenceParallel
from multimodal_gen.runtime.layers.activation import gelu_tanh
from multimodal_gen.runtime.layers.modulation import gated_add, modulated_norm
from multimodal_gen.runtime.layers.norm import QKNorm, rms_norm
from multimodal_gen.runtime.layers.rope import apply_rotary

_FP16_MAX = torch.finfo(torch.float16).max


class JointStream(nn.Module):
    """The weights that one stream has in a block: attention's projections, then an MLP.

    Modulation is six vectors [B, 1 or S, dim]: shift, scale and gate of attention, then of the MLP;
    1 has been added to the scales.
    """

    def __init__(self, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.heads = (3, heads, dim // heads)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.qk_norm = QKNorm(dim // heads)
        self.attention_out = nn.Linear(dim, dim)
        self.mlp_in = nn.Linear(dim, mlp_dim)
        self.mlp_out = nn.Linear(mlp_dim, dim)

    def project(self, x: Tensor, modulation: Sequence[Tensor]) -> Tensor:
        """Queries, keys and values, [B, S, 3, H, D]."""
        shift, scale = modulation[:2]
        projected: Tensor = self.qkv(modulated_norm(x, shift, scale))
        return projected.view(*projected.shape[:2], *self.heads)

    def update(self, x: Tensor, attended: Tensor, modulation: Sequence[Tensor]) -> Tensor:
        """Add what attention gave [B, S, dim], then the MLP."""
        _, _, gate, mlp_shift, mlp_scale, mlp_gate = modulation
        x = gated_add(x, gate, self.attention_out(attended))
        hidden = gelu_tanh(self.mlp_in(modulated_norm(x, mlp_shift, mlp_scale)))
        return gated_add(x, mlp_gate, self.mlp_out(hidden))


class StreamInput(NamedTuple):
    """One stream of a block: its weights, this rank's tokens [B, S_local, dim], its modulation."""

    weights: JointStream
    tokens: Tensor
    modulation: Sequence[Tensor]


def joint_block(
    inputs: Sequence[StreamInput],
    sequence: SequenceParallel,
    rotary: Tensor,
    streams: Sequence[int],
    lengths: Tensor | None = None,
) -> list[Tensor]:
    """The streams' tokens after a block in which all attend to all.

    `rotary`, `streams` and `lengths` (see `SequenceParallel.attention`) are of the streams in the
    order of `inputs`.
    """
    qkv = torch.cat([each.weights.project(each.tokens, each.modulation) for each in inputs], dim=1)
    counts = [each.tokens.shape[1] for each in inputs]
    qk = rms_norm(qkv[:, :, :2])  # [B, S_local, 2, H, D]
    for each, part in zip(inputs, qk.split_with_sizes(counts, dim=1), strict=True):
        each.weights.qk_norm.scale_(part)
    attended = joint_attention(sequence, qk, qkv[:, :, 2], rotary, streams, lengths)
    return [
        each.weights.update(each.tokens, part, each.modulation)
        for each, part in zip(inputs, attended.split_with_sizes(counts, dim=1), strict=True)
    ]


def joint_attention(
    sequence: SequenceParallel,
    qk: Tensor,
    v: Tensor,
    rotary: Tensor,
    streams: Sequence[int],
    lengths: Tensor | None = None,
) -> Tensor:
    """Attention of normalised queries and keys, [B, S, 2, H, D] -> [B, S, H * D]."""
    q, k = apply_rotary(qk, rotary).to(v.dtype).unbind(2)
    return sequence.attention(q, k, v, streams, lengths).flatten(2)


def within_fp16(x: Tensor) -> Tensor:
    """What overflowed in float16, cut to its largest number, as the references do."""
    return x.clip(-_FP16_MAX, _FP16_MAX) if x.dtype == torch.float16 else x
