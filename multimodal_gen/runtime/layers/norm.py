"""Norms of queries and keys, and of whole tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.elementwise import Elementwise
from multimodal_gen.runtime.layers.fused import choice
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.take import Sources


class QKNorm(Elementwise):
    """RMS norm of queries and keys over one head or over all, each with its own weight.

    `weight` [2 * D] holds the queries' weight, then the keys', in float32: products with it are
    exact, without a copy of what was normalised.
    """

    def __init__(self, width: int) -> None:
        super().__init__(2 * width)

    def take(
        self, sources: Mapping[str, Sources], dtype: torch.dtype, device: torch.device
    ) -> None:
        super().take(sources, torch.float32, device)

    def forward(self, qk: Tensor, eps: float, lora: LoraRows | None = None) -> Tensor:
        """New float32 tensor like queries and keys [B, S, 2, H, D]."""
        normalised = self.normalised(qk, eps)
        factors = self.factors(lora)
        if normalised.dtype == factors.dtype:
            return normalised.mul_(factors)
        return normalised * factors

    def normalised(self, qk: Tensor, eps: float) -> Tensor:
        """See `rms_norm`; for queries and keys [B, S, 2, H, D], not scaled yet."""
        return rms_norm(qk, eps)

    def factors(self, lora: LoraRows | None = None) -> Tensor:
        """The weight, which is broadcast to queries and keys [B, S, 2, H, D]."""
        weight = self.weight_of(lora).float()
        factors: Tensor = weight.unflatten(-1, (2, 1, weight.shape[-1] // 2))
        return factors


@dataclass(frozen=True)
class HeadNorms:
    """The norms of queries and keys of consecutive streams with so many tokens each."""

    norms: Sequence[QKNorm]
    counts: Sequence[int]
    eps: float
    lora: LoraRows | None = None
    across: bool = False
    """Over all heads of a token, not over each."""

    def __call__(self, qk: Tensor) -> Tensor:
        """New float32 tensor like queries and keys [B, S, 2, H, D]."""
        if self.across:
            whole = qk.flatten(3).unsqueeze(3)  # as one head: [B, S, 2, 1, H * D]
            return self._normed(whole).view(qk.shape)
        return self._normed(qk)

    def fused(self, qk: Tensor, table: Tensor | None) -> Tensor | None:
        """New tensor like queries and keys [B, S, 2, H, D], rotated by a table of `apply_rotary`,
        in one operation; None where there is none."""
        kernels = choice.kernels_for(qk)
        if kernels is None or any(type(norm) is not QKNorm for norm in self.norms):
            return None
        weights = [norm.weight_of(self.lora) for norm in self.norms]
        return kernels.turned(qk, weights, self.counts[0], self.eps, table, across=self.across)

    def _normed(self, qk: Tensor) -> Tensor:
        if len(self.norms) == 1:
            normed: Tensor = self.norms[0](qk, self.eps, self.lora)
            return normed
        normalised = rms_norm(qk, self.eps)
        parts = normalised.split_with_sizes(list(self.counts), dim=1)
        factors = [norm.factors(self.lora) for norm in self.norms]
        if torch.compiler.is_compiling():  # which takes no `out` that is a part of something
            return torch.cat([part * by for part, by in zip(parts, factors, strict=True)], dim=1)
        if normalised.dtype == torch.float32:
            scaled, into = normalised, parts
        else:
            scaled = torch.empty_like(normalised, dtype=torch.float32)
            into = scaled.split_with_sizes(list(self.counts), dim=1)
        for part, by, out in zip(parts, factors, into, strict=True):
            torch.mul(part, by, out=out)
        return scaled


class RMSNorm(Elementwise):
    """RMS norm of tokens [B, S, D] over D."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width)
        self.eps = eps

    def forward(self, x: Tensor, lora: LoraRows | None = None) -> Tensor:
        return scaled_rms_norm(x, self.weight_of(lora), self.eps)


class OffsetNorm(Elementwise):
    """RMS norm of tokens [B, S, D], whose weight a checkpoint has as the difference to 1."""

    def take(
        self, sources: Mapping[str, Sources], dtype: torch.dtype, device: torch.device
    ) -> None:
        super().take(sources, dtype, device)
        self.weight = nn.Parameter(self.weight + 1, requires_grad=False)

    def forward(
        self,
        x: Tensor,
        eps: float,
        lora: LoraRows | None = None,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:
        """The norm, times `scale` and plus `shift`, both [B, 1, D]."""
        weight = self.weight_of(lora)
        weight = weight if scale is None else weight * scale
        if shift is not None and (kernels := choice.kernels_for(x)) is not None:
            return kernels.norm(x, weight, shift, eps, centred=False)
        weight = weight.to(x.dtype)
        normalised = scaled_rms_norm(x, weight, eps)
        return normalised if shift is None else normalised.add_(shift)


class LayerNorm(Elementwise):
    """Layer norm of tokens [B, S, D] over D, computed in the type of its weight."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__(width)
        self.bias = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor, lora: LoraRows | None = None) -> Tensor:
        weight, bias = self.weight_of(lora), self.loras.value("bias", self.bias, lora)
        exact = weight.dtype == x.dtype
        if not exact and (kernels := choice.kernels_for(x)) is not None:
            return kernels.norm(x, weight, bias, self.eps)
        wide = x.to(weight.dtype)
        if weight.dim() == 1:
            return F.layer_norm(wide, x.shape[-1:], weight, bias, self.eps).to(x.dtype)
        normalised = F.layer_norm(wide, x.shape[-1:], eps=self.eps)
        return torch.addcmul(bias, normalised, weight).to(x.dtype)


def rms_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """New tensor like x [..., D], or a wider one, with a root mean square of 1 over D."""
    if _fused_by_torch(x):
        return F.rms_norm(x, x.shape[-1:], None, eps)
    return _normalised(x, eps)


def scaled_rms_norm(x: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """RMS norm of x [B, S, D], times `scale`: a weight [D], or one with a factor per row [B, 1,
    D]."""
    if _fused_by_torch(x):
        alone = not torch.compiler.is_compiling() and scale.numel() == x.shape[-1]
        if alone or scale.dim() == 1:
            return F.rms_norm(x, x.shape[-1:], scale.flatten(), eps)
        if (kernels := choice.kernels_for(x)) is not None:
            return kernels.norm(x, scale, None, eps, centred=False)
        return F.rms_norm(x, x.shape[-1:], None, eps) * scale
    return _normalised(x, eps).mul_(scale).to(x.dtype)


def _fused_by_torch(x: Tensor) -> bool:
    """Tell whether torch's own RMS norm of x is the fastest."""
    return x.device.type != "cpu" or torch.compiler.is_compiling()


def _normalised(x: Tensor, eps: float) -> Tensor:
    """See `rms_norm`; in float32, with one pass less than torch's own norm on a CPU, which writes
    the squares to memory."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    normalised: Tensor = x * (length.square() / x.shape[-1] + eps).rsqrt()
    return normalised
