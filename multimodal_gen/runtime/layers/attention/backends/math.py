"""Plain matrix products with softmax in float32: works everywhere, needs S_q x S_k memory."""

from __future__ import annotations

import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.local_attention import PartialOutput
from multimodal_gen.runtime.layers.attention.attention import key_mask, without_empty_rows


class MathAttention:
    def __call__(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Tensor:
        return _weighted(_scores(q, k, lengths).softmax(-1, dtype=torch.float32), v)

    def partial(
        self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None
    ) -> PartialOutput:
        scores = _scores(q, k, lengths).float()
        out = _weighted(scores.softmax(-1), v)
        found = PartialOutput(out, scores.logsumexp(-1).transpose(1, 2))
        return without_empty_rows(found, lengths)


attention = MathAttention()


def _scores(q: Tensor, k: Tensor, lengths: Tensor | None) -> Tensor:
    """[B, H, S_q, S_k]; minus infinity for keys that are not valid."""
    scores = torch.einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k)
    if lengths is None:
        return scores
    return scores.masked_fill(~key_mask(lengths, k.shape[1]), float("-inf"))


def _weighted(weights: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bhqk,bkhd->bqhd", weights.to(v.dtype), v)
