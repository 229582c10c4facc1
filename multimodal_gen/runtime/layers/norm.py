"""Norms of queries and keys, and of whole tokens."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_gen.runtime.layers.elementwise import Elementwise
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.layers.take import Sources


class QKNorm(Elementwise):
    """RMS norm of queries and keys over one head or over all, each with its own weight.

    `weight` [2 * D] holds the queries' weight, then the keys'.
    """

    def __init__(self, width: int) -> None:
        super().__init__(2 * width)

    def forward(self, qk: Tensor, eps: float, lora: LoraRows | None = None) -> Tensor:
        """New float32 tensor like queries and keys [B, S, 2, H, D]."""
        normalised = self.normalised(qk, eps)
        self.scale_(normalised, lora)
        return normalised

    def normalised(self, qk: Tensor, eps: float) -> Tensor:
        """See `rms_norm`; for queries and keys [B, S, 2, H, D], not scaled yet."""
        return rms_norm(qk, eps)

    def scale_(self, normalised: Tensor, lora: LoraRows | None = None) -> None:
        """Multiply an output of `rms_norm` [B, S, 2, H, D] by the weight, in place."""
        weight = self.weight_of(lora)
        normalised.mul_(weight.unflatten(-1, (2, 1, weight.shape[-1] // 2)))


class RMSNorm(Elementwise):
    """RMS norm of tokens [B, S, D] over D."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width)
        self.eps = eps

    def forward(self, x: Tensor, lora: LoraRows | None = None) -> Tensor:
        weight = self.weight_of(lora)
        if weight.dim() == 1:
            return F.rms_norm(x, x.shape[-1:], weight, self.eps)
        return F.rms_norm(x, x.shape[-1:], None, self.eps) * weight


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
        weight = (weight if scale is None else weight * scale).to(x.dtype)
        normalised = scaled_rms_norm(x, weight, eps)
        return normalised if shift is None else normalised.add_(shift)


class LayerNorm(Elementwise):
    """Layer norm of tokens [B, S, D] over D."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__(width)
        self.bias = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor, lora: LoraRows | None = None) -> Tensor:
        weight, bias = self.weight_of(lora), self.loras.value("bias", self.bias, lora)
        if weight.dim() == 1:
            return F.layer_norm(x, x.shape[-1:], weight, bias, self.eps)
        return torch.addcmul(bias, F.layer_norm(x, x.shape[-1:], eps=self.eps), weight)


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
