"""Attention in which some tokens count more to each other than the others do."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.runtime.distributed.sequence import Attending

_ADDED = 8
"""Dimensions added to each head: kernels want multiples of 8."""


class Emphasised:
    """Adds the product of two tokens' emphasis to the logarithm of the weight that one has for the
    other.

    It is a further dimension of queries and keys, so that any backend and any way of sharing the
    sequence does it. Heads are wider by a few dimensions until the result; with `rotary_scale` in
    the rotary table, all other products stay as they are.
    """

    def __init__(self, attending: Attending, emphasis: Tensor, width: int) -> None:
        """`attending` has values that are `widened`; `emphasis` is the result of `emphasis_of`, and
        `width` the heads' own."""
        self._attending = attending
        self._emphasis = emphasis
        self._width = width

    def start(self, qk: Tensor) -> None:
        added = self._emphasis.expand(-1, -1, -1, qk.shape[3], -1)
        self._attending.start(torch.cat((qk, added), dim=-1))

    def wait(self) -> Tensor:
        heads: Tensor = self._attending.wait().unflatten(-1, (-1, self._width + _ADDED))
        return heads[..., : self._width].flatten(2)


def emphasis_of(tokens: Tensor, width: int) -> Tensor:
    """Added dimensions of queries and keys, float32 [B, S, 2, 1, A], for the emphasis [B, S] of
    tokens and heads of `width`."""
    tokens = tokens.float()
    pairs = torch.stack((tokens * math.sqrt(width + _ADDED), tokens), dim=-1)
    return F.pad(pairs[..., None, None], (0, _ADDED - 1))


def widened(values: Tensor) -> Tensor:
    """Values [B, S, H, D] as `Emphasised` needs them."""
    return F.pad(values, (0, _ADDED))


def rotary_scale(width: int) -> float:
    """Factor of queries and keys that makes up for the wider heads, by which attention divides."""
    return math.sqrt(math.sqrt((width + _ADDED) / width))
