"""torch's memory-efficient kernel for NVIDIA GPUs (Rabe and Staats 2021, arXiv:2112.05682): also
for float32 and for GPUs that flash doesn't serve."""

from __future__ import annotations

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.attention.attention import KernelAttention
from multimodal_gen.runtime.layers.attention.packed import row_starts
from multimodal_gen.runtime.layers.attention.sites import LATER, KernelLimits

_aten = torch.ops.aten
_NO_MASK = 0

LIMITS = KernelLimits(
    majors=range(7, LATER), dtypes=(torch.float32, torch.float16, torch.bfloat16), widest=512
)


def _efficient(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, *, scores: bool
) -> tuple[Tensor, Tensor]:
    if lengths is not None:
        out, log_sum_exp = _of_lengths(q, k, v, lengths, scores)
    else:
        by_head = (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))  # [B, H, S, D]
        found = _aten._scaled_dot_product_efficient_attention(*by_head, None, scores)
        out, log_sum_exp = found[0].transpose(1, 2), found[1]
    # It pads the queries to its tiles.
    return out, log_sum_exp[:, :, : q.shape[1]].transpose(1, 2)


def _of_lengths(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, scores: bool
) -> tuple[Tensor, Tensor]:
    """Each row has the tokens of the longest, of which the kernel reads the valid ones."""
    rows, queries, keys = len(q), q.shape[1], k.shape[1]
    out, log_sum_exp, *_ = _aten._efficient_attention_forward(
        *(x.flatten(0, 1).unsqueeze(0) for x in (q, k, v)),  # [1, B * S, H, D]
        None,
        row_starts(rows, queries, q.device),
        row_starts(rows, keys, q.device),
        queries,
        keys,
        0.0,
        _NO_MASK,
        scores,
        seqlen_k=lengths.to(torch.int32),
    )
    return out.squeeze(0).unflatten(0, (rows, queries)), log_sum_exp


attention = KernelAttention(_efficient)
