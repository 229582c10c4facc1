"""Embeddings of timesteps, and of other numbers and vectors that apply to a whole row."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.parts import Parts

KEPT_FREQUENCIES: dict[tuple[int, float, torch.device], Tensor] = {}
"""Those of `sinusoidal_embedding` for each number, period and device: graphs may read them."""


def sinusoidal_embedding(
    values: Tensor, dim: int = 256, max_period: float = 10000.0, scale: float = 1.0
) -> Tensor:
    """cos, then sin of values [...] times decreasing frequencies, [..., dim] in float32 (DDPM,
    FLUX).

    `scale` is multiplied last, which matches the rounding of models that do so.
    """
    angles = values.float().unsqueeze(-1) * _frequencies(dim // 2, max_period, values.device)
    if scale != 1.0:
        angles = angles * scale
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def _frequencies(count: int, max_period: float, device: torch.device) -> Tensor:
    """Decreasing frequencies, from 1: made once, as each evaluation needs the same."""
    key = (count, max_period, device)
    if key not in KEPT_FREQUENCIES:
        steps = torch.arange(count, dtype=torch.float32, device=device)
        KEPT_FREQUENCIES[key] = torch.exp(-math.log(max_period) * steps / count)
    return KEPT_FREQUENCIES[key]


class EmbeddingMLP(nn.Module):
    """Linear, an activation, linear: [..., in] -> [..., out]; between them `hidden` features, or
    `out`."""

    def __init__(
        self,
        parts: Parts,
        in_features: int,
        out_features: int,
        *,
        hidden: int | None = None,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] = F.silu,
    ) -> None:
        super().__init__()
        self.activation = activation
        hidden = out_features if hidden is None else hidden
        self.linear_1 = parts.linear(in_features, hidden, bias=bias)
        self.linear_2 = parts.linear(hidden, out_features, bias=bias)

    def forward(self, x: Tensor, lora: LoraRows | None = None) -> Tensor:
        hidden: Tensor = self.linear_2(self.activation(self.linear_1(x, lora)), lora)
        return hidden
