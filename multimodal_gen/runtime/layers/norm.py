"""RMS norms: of queries and keys, and of whole tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class QKNorm(nn.Module):
    """RMS norm of queries and keys over the head dimension, each with its own weight.

    `weight` [2 * D] holds the queries' weight, then the keys'.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2 * head_dim))

    def scale_(self, normalised: Tensor) -> None:
        """Multiply an output of `rms_norm` [B, S, 2, H, D] by the weight, in place."""
        normalised.mul_(self.weight.view(2, 1, -1))


def rms_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """New float32 tensor like x [..., D] with a root mean square of 1 over D."""
    return F.rms_norm(x.float(), x.shape[-1:], None, eps)


def scaled_rms_norm(x: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """RMS norm of x [B, S, D], times `scale`: a weight [D], or one with a factor per row [B, 1,
    D]."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.rms_norm(x, x.shape[-1:], None, eps) * scale
    # One pass less than torch's own norm on a CPU, which writes the squares to memory.
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    normalised: Tensor = x * (length.square() / x.shape[-1] + eps).rsqrt()
    return normalised.mul_(scale).to(x.dtype)
