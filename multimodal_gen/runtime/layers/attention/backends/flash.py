"""torch's FlashAttention-2 kernel for NVIDIA GPUs (Dao 2023, arXiv:2307.08691)."""

from __future__ import annotations

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.attention.attention import KernelAttention
from multimodal_gen.runtime.layers.attention.packed import row_starts
from multimodal_gen.runtime.layers.attention.sites import HALVES, LATER, KernelLimits

_aten = torch.ops.aten

LIMITS = KernelLimits(majors=range(8, LATER), dtypes=HALVES, widest=256)


def _flash(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, *, scores: bool
) -> tuple[Tensor, Tensor]:
    if lengths is not None:
        return _of_lengths(q, k, v, lengths)
    by_head = (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))  # [B, H, S, D]
    out, log_sum_exp, *_ = _aten._scaled_dot_product_flash_attention(*by_head)
    return out.transpose(1, 2), log_sum_exp.transpose(1, 2)


def _of_lengths(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Each row has the tokens of the longest, of which the kernel reads the valid ones."""
    rows, queries, keys = len(q), q.shape[1], k.shape[1]
    out, log_sum_exp, *_ = _aten._flash_attention_forward(
        *(x.flatten(0, 1) for x in (q, k, v)),  # [B * S, H, D]
        row_starts(rows, queries, q.device),
        row_starts(rows, keys, q.device),
        queries,
        keys,
        0.0,
        False,
        False,
        seqused_k=lengths.to(torch.int32),
    )
    return out.unflatten(0, (rows, queries)), log_sum_exp.T.unflatten(0, (rows, queries))


attention = KernelAttention(_flash)
