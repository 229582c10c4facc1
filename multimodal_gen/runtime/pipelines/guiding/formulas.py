"""Formulas of guidance for n requests at once: tensors [n, ...]."""

from __future__ import annotations

import torch
from torch import Tensor

Number = float | Tensor
"""One for all requests, or float32 [n, 1, ...]."""


def beyond_negative(positive: Tensor, negative: Tensor, away: Tensor, scale: Number) -> Tensor:
    """Classifier-free guidance with diffusers' scale: 1 is the positive branch. `away` is what
    leads from the negative branch to the positive."""
    return negative + _times(scale, away)


def beyond_positive(positive: Tensor, negative: Tensor, away: Tensor, scale: Number) -> Tensor:
    """Ho & Salimans 2022, eq. 6, whose scale is relative to the positive branch: 0 is that
    branch."""
    return positive + _times(scale, away)


def _times(scale: Number, x: Tensor) -> Tensor:
    """Product in the dtype of x, rounded once, as with a Python number."""
    return (scale * x).to(x.dtype)


def keeping_norm(positive: Tensor, negative: Tensor, away: Tensor, scale: Number) -> Tensor:
    """`beyond_negative`, with each token rescaled to its norm in the positive branch."""
    guided = beyond_negative(positive, negative, away, scale)
    ratio: Tensor = positive.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True)
    return guided * ratio


def fitted(negative: Tensor, positive: Tensor) -> Tensor:
    """Multiple of the negative prediction that is nearest to the positive one (Fan et al. 2025,
    arXiv:2503.18886, eq. 7)."""
    flat, other = negative.flatten(1).float(), positive.flatten(1).float()
    along = (flat * other).sum(1) / ((flat * flat).sum(1) + 1e-8)
    factor: Tensor = along.to(negative.dtype).view(-1, *[1] * (negative.dim() - 1))
    return negative * factor


def limited(away: Tensor, norm: Number) -> Tensor:
    """`away`, shortened to `norm` if it is longer."""
    length: Tensor = torch.linalg.vector_norm(away, dim=_inner(away), keepdim=True)
    return away * (norm / length).clamp(max=1)


def projected(away: Tensor, positive: Tensor, eta: Number) -> Tensor:
    """Part of `away` across the positive prediction, plus `eta` times the part along it (Sadat et
    al. 2024, arXiv:2410.02416, eq. 5 to 7)."""
    precise, direction, dims = away.double(), positive.double(), _inner(away)
    direction = direction / torch.linalg.vector_norm(direction, dim=dims, keepdim=True)
    along: Tensor = (precise * direction).sum(dims, keepdim=True) * direction
    across: Tensor = (precise - along).to(away.dtype)
    return across + eta * along.to(away.dtype)


def rescaled(guided: Tensor, positive: Tensor, amount: Number) -> Tensor:
    """`guided`, to the extent `amount` with the spread of the positive prediction (Lin et al. 2023,
    arXiv:2305.08891, eq. 15 and 16)."""
    dims = _inner(guided)
    ratio = positive.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
    return amount * (guided * ratio) + (1 - amount) * guided


def _inner(tensor: Tensor) -> list[int]:
    """All dimensions but the first."""
    return [*range(1, tensor.dim())]
