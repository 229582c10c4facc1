"""Interface of the attention on one rank, on which the sharing of sequences between ranks stands.

The backends are in `layers/attention`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class PartialOutput(NamedTuple):
    """Attention to some of the keys; parts are merged by their log-sum-exp, see `ring`."""

    out: Tensor
    """[B, S_q, H, D]; 0 where no key is valid."""
    log_sum_exp: Tensor
    """Of the scaled scores, [B, S_q, H] in float32; minus infinity where no key is valid."""


class Prefix(NamedTuple):
    """Keys and values [B, P, H, D] that every query of a sequence attends to besides it.

    Each rank has all P, for the heads with which it attends: see `SequenceParallel.own_heads`.
    """

    keys: Tensor
    values: Tensor
    lengths: Tensor | None = None
    """Number of valid leading ones per row, [B]; None: all."""

    def behind(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys, values and lengths of a sequence's own and of these."""
        lengths = None if self.lengths is None else self.lengths + k.shape[1]
        keys = torch.cat((k.to(v.dtype), self.keys), dim=1)
        return keys, torch.cat((v, self.values), dim=1), lengths


class Attention(Protocol):
    """softmax(q kᵀ / √D) v for q [B, S_q, H, D] and k, v [B, S_k, H, D] -> [B, S_q, H, D].

    D is innermost in memory. `lengths` [B] (at least 1; int32 saves kernels a cast) is the number
    of valid leading keys per row; the others are ignored. None means that all are valid, and is the
    fast path.
    """

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None
    ) -> Tensor: ...

    def partial(
        self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None
    ) -> PartialOutput:
        """Attention to keys of which there may be more elsewhere: a length may also be 0."""
