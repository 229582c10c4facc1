"""Adaptive layer norm (Peebles & Xie 2022, arXiv:2212.09748), with shifts and scales given."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """LayerNorm(x) * scale + shift for x [B, S, D] and shift, scale [B, 1, D].

    The caller has added 1 to `scale`: once for all blocks rather than in each.
    """
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=eps), scale)


def gated_add(x: Tensor, gate: Tensor, update: Tensor) -> Tensor:
    """x + gate * update for x, update [B, S, D] and gate [B, 1, D]."""
    return torch.addcmul(x, gate, update)
