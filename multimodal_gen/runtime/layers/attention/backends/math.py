"""Plain matrix products with softmax in float32: works everywhere, needs S_q x S_k memory."""

from __future__ import annotations

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.attention.attention import key_mask


def attention(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Tensor:
    scores = torch.einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k)
    if lengths is not None:
        scores = scores.masked_fill(~key_mask(lengths, k.shape[1]), float("-inf"))
    weights = scores.softmax(-1, dtype=torch.float32).to(v.dtype)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v)
