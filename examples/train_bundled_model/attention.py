"""Attention for training on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor


def plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: object,
) -> Tensor:
    """What torch's scaled_dot_product_attention computes, without dropout.

    For some fifty tokens two products and a softmax are twice as fast, forward and backward, as the
    flash kernel that torch chooses on a CPU.
    """
    scores = (query * (scale or query.shape[-1] ** -0.5)) @ key.mT
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1).to(value.dtype) @ value
