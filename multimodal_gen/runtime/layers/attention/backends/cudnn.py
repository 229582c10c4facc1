"""cuDNN's kernel for NVIDIA GPUs, through torch."""

from __future__ import annotations

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.attention.attention import KernelAttention, key_mask
from multimodal_gen.runtime.layers.attention.backends import flash
from multimodal_gen.runtime.layers.attention.sites import HALVES, LATER, KernelLimits

_aten = torch.ops.aten

LIMITS = KernelLimits(majors=range(8, LATER), dtypes=HALVES, widest=128)


def _cudnn(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, *, scores: bool
) -> tuple[Tensor, Tensor]:
    if k.shape[1] == 1:  # none of its kernels
        found = flash.attention.partial(q, k, v, lengths)
        return found.out, found.log_sum_exp
    mask = None if lengths is None else _additive_mask(q, k, lengths)
    by_head = (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))  # [B, H, S, D]
    out, log_sum_exp, *_ = _aten._scaled_dot_product_cudnn_attention(*by_head, mask, scores)
    if scores:  # [B, H, S], or with a last size of 1
        log_sum_exp = log_sum_exp.flatten(2).transpose(1, 2)
    return out.transpose(1, 2), log_sum_exp


def _additive_mask(q: Tensor, k: Tensor, lengths: Tensor) -> Tensor:
    """0 for valid keys, minus infinity for others, [B, H, S_q, S_k]."""
    mask = q.new_zeros(len(q), 1, 1, k.shape[1])
    mask.masked_fill_(~key_mask(lengths, k.shape[1]), float("-inf"))
    return mask.expand(-1, q.shape[2], q.shape[1], -1)


attention = KernelAttention(_cudnn)
