"""A convolution whose stride is its kernel, as a matrix product of patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PatchLinear(nn.Module):
    """Has the weights of the convolution, [dim, channels, *patch]."""

    def __init__(self, channels: int, dim: int, patch: tuple[int, ...]) -> None:
        super().__init__()
        self.patch = patch
        self.weight = nn.Parameter(torch.empty(dim, channels, *patch))
        self.bias = nn.Parameter(torch.empty(dim))

    def forward(self, patches: Tensor) -> Tensor:
        """[B, S, channels * patch] -> [B, S, dim]."""
        return F.linear(patches, self.weight.flatten(1), self.bias)
