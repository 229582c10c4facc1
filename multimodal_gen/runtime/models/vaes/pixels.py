"""Converts a VAE's output to displayable pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def to_uint8(decoded: Tensor) -> Tensor:
    """[N, 3, H, W] in -1..1 -> [N, H, W, 3] uint8, rounded as diffusers' VaeImageProcessor does."""
    unit = (decoded * 0.5 + 0.5).clamp(0, 1)
    return (unit.permute(0, 2, 3, 1).float() * 255).round().to(torch.uint8).contiguous()
