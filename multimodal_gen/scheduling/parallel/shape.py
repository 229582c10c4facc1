"""Sizes that sharing an evaluation depends on: the transformer's layers, and the tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TransformerShape:
    """Layers of a transformer that ranks may share."""

    width: int
    """Features of a token."""
    heads: int
    channels: int
    """Numbers that are predicted per token of the output."""
    attentions: int
    """Attentions of the sequence to itself."""
    sums: int
    """Products over features that tensor ranks share, whose parts are added up: [tokens, width]."""
    norms: int = 0
    """Norms over all heads, for which tensor ranks add up a number per token."""
    reductions: int
    """Exchanges that add up: one for each layer of each stream with such a product, and for each
    such norm."""
    modulation: int = 0
    """Numbers of a row that ranks of a sequence make in turns, and gather."""
    token_weights: int
    """Weights that each token is multiplied with, in layers that tensor ranks share."""
    all_weights: int
    """Weights of those layers: more, if text and image have their own."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation of a request of the usual size."""

    shape: TransformerShape
    rows: int
    """Two with classifier-free guidance, else one."""
    tokens: int
    """Tokens per row, text included."""
    output: int
    """Numbers per row of the prediction."""
    itemsize: int
    """Bytes of a number."""
    weights: float = 0.0
    """Bytes of the transformer's weights."""

    def weights_on_rank(self, tensor: int) -> float:
        """Bytes of weights on each of `tensor` ranks."""
        shared = min(self.weights, self.shape.all_weights * self.itemsize)
        return self.weights - shared + shared * share(self.shape.heads, tensor)

    @property
    def products(self) -> float:
        """Floating-point operations of a row's linear layers."""
        return 2.0 * self.shape.token_weights * self.tokens

    @property
    def attention(self) -> float:
        """Floating-point operations of a row's attentions."""
        return 4.0 * self.shape.attentions * self.tokens**2 * self.shape.width


def share(count: int, ranks: int) -> float:
    """Largest part of `count` that one of `ranks` has, relative to all of it."""
    return math.ceil(count / ranks) / count
