"""torch's fused kernel for the current device."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.runtime.layers.attention.attention import key_mask


def attention(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Tensor:
    mask = None if lengths is None else key_mask(lengths, k.shape[1])
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # [B, H, S, D]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
