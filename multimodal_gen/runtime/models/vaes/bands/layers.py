"""Layers of diffusers' decoders that look beyond a band of rows.

Others see one position, or enlarge each for itself: they are used as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.models.vaes.bands.exchange import Bands


class BandedConv(nn.Module):
    """A convolution of stride 1 with zeros around it, in time perhaps only before it."""

    def __init__(self, conv: Any, bands: Bands) -> None:
        """`conv` is changed: it no longer pads."""
        super().__init__()
        sides = [side for size in reversed(conv.padding) for side in (size, size)]
        self._padding = tuple(getattr(conv, "_padding", sides))
        self._bands = bands
        conv.padding = (0,) * len(conv.padding)
        self.conv = conv

    def forward(self, x: Tensor, before: Tensor | None = None) -> Tensor:
        """`x` is [B, C, h, W] or [B, C, T, h, W], and `before` earlier frames of it."""
        padding, rows = [*self._padding], self._padding[2]
        if before is not None and padding[4]:
            x = torch.cat([before, x], dim=2)
            padding[4] -= before.shape[2]
        x = F.pad(x, padding)
        above, below = self._bands.beyond(x[..., rows : 2 * rows, :], x[..., -2 * rows : -rows, :])
        x[..., :rows, :] = above
        x[..., -rows:, :] = below
        out: Tensor = self.conv._conv_forward(x, self.conv.weight, self.conv.bias)
        return out


class BandedGroupNorm(nn.Module):
    """Normalizes by mean and variance over all bands, which are combined in float64."""

    def __init__(self, norm: nn.GroupNorm, bands: Bands) -> None:
        super().__init__()
        self.norm = norm
        self._bands = bands

    def forward(self, x: Tensor) -> Tensor:
        norm, (batch, channels) = self.norm, x.shape[:2]
        groups = x.float().unflatten(1, (norm.num_groups, -1))
        own = torch.var_mean(groups, tuple(range(2, groups.dim())), correction=0)
        del groups
        variances, means = self._bands.all(torch.stack(own).double()).unbind(1)
        fractions = self._bands.fractions.view(-1, 1, 1)
        mean = (fractions * means).sum(0)
        variance = (fractions * (variances + (means - mean) ** 2)).sum(0)
        repeats = channels // norm.num_groups
        scale = (variance + norm.eps).rsqrt().repeat_interleave(repeats, 1) * norm.weight
        shift = norm.bias - mean.repeat_interleave(repeats, 1) * scale
        shape = (batch, channels, *(1,) * (x.dim() - 2))
        return (x * scale.float().view(shape)).add_(shift.float().view(shape)).to(x.dtype)


class BandedAttention(nn.Module):
    """Attention of AutoencoderKL, of a band's positions to those of all bands."""

    def __init__(self, attention: Any, bands: Bands) -> None:
        super().__init__()
        self.attention = attention
        self._bands = bands

    def forward(self, x: Tensor, temb: None = None) -> Tensor:
        own, tokens = self.attention, x.flatten(2)
        if own.group_norm is not None:
            tokens = own.group_norm(tokens)
        tokens = tokens.transpose(1, 2)
        q = own.to_q(tokens)
        kv = self._bands.tokens(torch.cat([own.to_k(tokens), own.to_v(tokens)], dim=-1))
        heads = (
            each.unflatten(-1, (own.heads, -1)).transpose(1, 2) for each in (q, *kv.chunk(2, -1))
        )
        out = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        out = own.to_out[0](out).transpose(1, 2).reshape(x.shape)
        shown: Tensor = (out + x if own.residual_connection else out) / own.rescale_output_factor
        return shown


class BandedFrameAttention(nn.Module):
    """Attention of AutoencoderKLWan within each frame, of a band's positions to those of all."""

    def __init__(self, attention: Any, bands: Bands) -> None:
        super().__init__()
        self.attention = attention
        self._bands = bands

    def forward(self, x: Tensor) -> Tensor:
        own, frames = self.attention, x.transpose(1, 2).flatten(0, 1)
        qkv = own.to_qkv(own.norm(frames)).flatten(2).transpose(1, 2)
        channels = frames.shape[1]
        q, kv = qkv.split([channels, 2 * channels], dim=-1)
        heads = (
            each.unsqueeze(1).contiguous() for each in (q, *self._bands.tokens(kv).chunk(2, -1))
        )
        attended = F.scaled_dot_product_attention(*heads).squeeze(1).transpose(1, 2)
        out = own.proj(attended.reshape(frames.shape))
        shown: Tensor = x + out.unflatten(0, (x.shape[0], -1)).transpose(1, 2)
        return shown
