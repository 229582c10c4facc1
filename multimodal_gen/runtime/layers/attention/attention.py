"""Selection of attention backends, and what they share."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor

from multimodal_gen.configs.attention import ATTENTION_BACKENDS
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.distributed.local_attention import Attention, PartialOutput


def select_attention(name: str = "auto") -> Attention:
    """Return the backend called `name`: `attention` of a module in `backends/`.

    `auto` is `sdpa` everywhere: on CPU `math` is at best 5 % faster (below 150 tokens) and up to
    four times slower (from 300).
    """
    if name == "auto":
        name = "sdpa"
    if name not in ATTENTION_BACKENDS:
        allowed = f"must be one of auto, {', '.join(ATTENTION_BACKENDS)}"
        raise InvalidRequest("attention_backend", name, allowed)
    module = import_module(f"multimodal_gen.runtime.layers.attention.backends.{name}")
    attention: Attention = module.attention
    return attention


def key_mask(lengths: Tensor, keys: int) -> Tensor:
    """True where a key is valid, [B, 1, 1, keys]."""
    return (torch.arange(keys, device=lengths.device) < lengths[:, None])[:, None, None]


def without_empty_rows(partial: PartialOutput, lengths: Tensor | None) -> PartialOutput:
    """Set what `PartialOutput` says for rows without a valid key: kernels differ there."""
    if lengths is None:
        return partial
    empty = (lengths == 0)[:, None, None]
    return PartialOutput(
        partial.out.masked_fill(empty.unsqueeze(-1), 0),
        partial.log_sum_exp.masked_fill(empty, float("-inf")),
    )
