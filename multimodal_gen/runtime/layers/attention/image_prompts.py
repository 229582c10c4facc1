"""Image prompts: attention to the tokens of a picture, besides that to text (Ye et al. 2023, IP-
Adapter, arXiv:2308.06721)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from multimodal_gen.runtime.layers.joint_stream import BlockContext
from multimodal_gen.runtime.layers.linear import Linear
from multimodal_gen.runtime.layers.parts import Parts

PromptAttention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of queries to keys and values, all [B, S, H, D]."""


class ImagePrompt(NamedTuple):
    """Terms that some rows of an evaluation add to the output of one attention."""

    keys_values: Tensor
    """[r, N, 2 * H * D]: keys, then values, of the picture of each row."""
    scale: Tensor
    """[r]"""
    rows: Tensor | None
    """Which rows of the batch, [r]; None means all."""

    def add(self, queries: Tensor, output: Tensor, attend: PromptAttention) -> None:
        """Add it to `output` [R, S, H * D] of an attention with these queries [R, S, H, D], in
        place."""
        chosen = queries if self.rows is None else queries[self.rows]
        keys, values = self.keys_values.unflatten(-1, (2, *queries.shape[2:])).unbind(2)
        seen = attend(chosen, keys, values).flatten(2) * self.scale.to(output.dtype)[:, None, None]
        if self.rows is None:
            output.add_(seen)
        else:
            output.index_add_(0, self.rows, seen)


class ImagePrompts:
    """Image prompts of one joint attention of text and image: the image's queries, before they are
    rotated, attend to them."""

    def __init__(self, parts: Parts, dim: int, heads: int) -> None:
        self._parts = parts
        self.dim, self._heads, self._width = dim, heads, dim // heads
        self.now: list[ImagePrompt] = []
        """Those of the current evaluation."""
        self._seen: list[Tensor] = []

    def keys_values(self, width: int, *, bias: bool) -> Linear:
        """Create the layer, without weights, that makes keys and values of tokens."""
        return self._parts.column(width, (self.dim, self.dim), unit=self._width, bias=bias)

    def looking(self, context: BlockContext, after: int) -> BlockContext:
        """Context in which the queries behind `after` tokens attend to them."""
        if not self.now:
            return context
        return context._replace(unrotated=lambda qk: self._look(qk[:, after:, 0]))

    def _look(self, queries: Tensor) -> None:
        dtype = self.now[0].keys_values.dtype
        seen = torch.zeros_like(queries, dtype=dtype).flatten(2)
        for prompt in self.now:
            prompt.add(queries.to(dtype), seen, self._parts.cross_attention)
        self._seen = [seen]

    def added(self, image: Tensor) -> Tensor:
        """Add what they have seen to the image's tokens [R, S_local, dim] behind the block."""
        if not self.now:
            return image
        return image + self._parts.whole_heads(self._seen.pop(), self._heads, self._width)
