"""Linear layers and embeddings of library modules whose weights keep the form of the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.layers.quantized.storage import KeptWeight


class KeptLinear(nn.Linear):
    """x [..., in] -> x Wᵀ + b [..., out]."""

    def __init__(self, kept: KeptWeight, bias: Tensor | None) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = kept.shape
        self.kept = kept
        own = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.register_parameter("bias", own)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """Shape, dtype and device for those who ask; its numbers are NaN and take no memory."""
        return _nothing(self.kept)

    def forward(self, x: Tensor) -> Tensor:
        return self.kept.product(x, self.bias)


class KeptEmbedding(nn.Embedding):
    """Indices [...] -> rows [..., D] of the weight, times a scale if there is one."""

    embed_scale: Tensor | None

    def __init__(self, kept: KeptWeight, padding_idx: int | None, scale: Tensor | None) -> None:
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = kept.shape
        self.padding_idx = padding_idx
        self.kept = kept
        self.register_buffer("embed_scale", scale, persistent=False)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """Like `KeptLinear.weight`."""
        return _nothing(self.kept)

    def forward(self, index: Tensor) -> Tensor:
        rows = self.kept.rows(index)
        return rows if self.embed_scale is None else rows * self.embed_scale.to(rows.dtype)


def _nothing(kept: KeptWeight) -> Tensor:
    return torch.full((), torch.nan, dtype=kept.dtype, device=kept.device).expand(kept.shape)


def _embedding(layer: Any, kept: KeptWeight, bias: Tensor | None) -> KeptEmbedding:
    return KeptEmbedding(kept, layer.padding_idx, getattr(layer, "embed_scale", None))


KEPT_LAYERS: Mapping[str, Callable[[Any, KeptWeight, Tensor | None], nn.Module]] = {
    "Linear": lambda layer, kept, bias: KeptLinear(kept, bias),
    "Embedding": _embedding,
    "GemmaTextScaledWordEmbedding": _embedding,
    "Gemma2TextScaledWordEmbedding": _embedding,
}
"""Replacements of a library's layers, by the name of their class."""
