"""Exchange of tokens for heads after DeepSpeed-Ulysses (Jacobs et al. 2023, arXiv:2309.14509).

Between attentions every rank holds a share of the sequence with all heads; within attention, an
all-to-all turns that into the whole sequence with a share of the heads. In one attention a rank
sends 4 * (P - 1) / P * B * S / P * H * D elements: queries, keys, values, and the output.

What travels is in the order [destination][token][...][row][head], so that what comes from all ranks
is one tensor by token, whatever the ranks' numbers of tokens and heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import torch.distributed as dist
from torch import Tensor

from multimodal_gen.runtime.distributed.collectives import Transfer, start_all_to_all
from multimodal_gen.runtime.distributed.mesh import Axis
from multimodal_gen.runtime.distributed.rows import deal


class Pending(Protocol):
    """A tensor that is on its way."""

    def wait(self) -> Tensor: ...


class Exchange(Protocol):
    """Exchanges among the ranks that share a block of the sequence.

    `tokens` are their numbers of tokens, S_local of S.
    """

    def own_heads(self, x: Tensor) -> Tensor:
        """The heads of x [..., H, D] that this rank gets."""

    def to_heads(self, x: Tensor, like: Tensor, tokens: Sequence[int]) -> Pending:
        """Start to exchange x [B, S_local, N, H, D] for [B, S, N, H_local, D], of the dtype of
        `like`; S is by rank, and in each as it was there."""

    def to_tokens(self, out: Tensor, tokens: Sequence[int], count: int) -> Pending:
        """Start to exchange out [B, S, H_local, D] for [B, S_local, H, D], of `count` heads."""


class NoExchange:
    """Exchange of a rank that has a block for itself."""

    def own_heads(self, x: Tensor) -> Tensor:
        return x

    def to_heads(self, x: Tensor, like: Tensor, tokens: Sequence[int]) -> Pending:
        return _Here(x)

    def to_tokens(self, out: Tensor, tokens: Sequence[int], count: int) -> Pending:
        return _Here(out)


class _Here:
    def __init__(self, x: Tensor) -> None:
        self._x = x

    def wait(self) -> Tensor:
        return self._x


class HeadExchange:
    """All-to-all between the ranks of an axis."""

    def __init__(self, axis: Axis) -> None:
        assert axis.group is not None
        self._group: dist.ProcessGroup = axis.group
        self._rank = axis.rank
        self._size = axis.size

    def own_heads(self, x: Tensor) -> Tensor:
        own: Tensor = x.split(head_counts(x.shape[-2], self._size), dim=-2)[self._rank]
        return own

    def to_heads(self, x: Tensor, like: Tensor, tokens: Sequence[int]) -> _HeadTransfer:
        """See `Exchange`. Writes each element once."""
        batch, own, kinds, count, width = x.shape
        heads = head_counts(count, self._size)
        row, mine = kinds * batch * width, heads[self._rank]
        outgoing = like.new_empty(x.numel())
        sent, received = [own * row * n for n in heads], [n * row * mine for n in tokens]
        if heads[0] == heads[-1]:
            by_rank = x.unflatten(3, (self._size, mine)).permute(3, 1, 2, 0, 4, 5)
            outgoing.view(by_rank.shape).copy_(by_rank)
        else:
            places = outgoing.split_with_sizes(sent)
            for place, piece in zip(places, x.split_with_sizes(heads, 3), strict=True):
                by_token = piece.permute(1, 2, 0, 3, 4)
                place.view(by_token.shape).copy_(by_token)
        incoming = like.new_empty(sum(tokens), kinds, batch, mine, width)
        return _HeadTransfer(start_all_to_all(outgoing, incoming, sent, received, self._group))

    def to_tokens(self, out: Tensor, tokens: Sequence[int], count: int) -> _TokenTransfer:
        batch, _, mine, width = out.shape
        outgoing = out.transpose(0, 1).contiguous()  # no copy for one row
        row, own, heads = batch * width, tokens[self._rank], head_counts(count, self._size)
        incoming = out.new_empty(own * row * count)
        sent, received = [n * row * mine for n in tokens], [own * row * n for n in heads]
        transfer = start_all_to_all(outgoing, incoming, sent, received, self._group)
        return _TokenTransfer(transfer, heads, (own, batch, width))


class _HeadTransfer:
    """Tokens that are on their way to the ranks of their heads."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer

    def wait(self) -> Tensor:
        """Return [B, S, N, H_local, D], a view."""
        return self._transfer.wait().permute(2, 0, 1, 3, 4)


class _TokenTransfer:
    """Heads that are on their way to the ranks of their tokens."""

    def __init__(
        self, transfer: Transfer, heads: Sequence[int], sizes: tuple[int, int, int]
    ) -> None:
        self._transfer = transfer
        self._heads = heads
        self._sizes = sizes

    def wait(self) -> Tensor:
        """Return [B, S_local, H, D]."""
        received, heads = self._transfer.wait(), self._heads
        own, batch, width = self._sizes
        if heads[0] == heads[-1]:
            by_rank = received.view(len(heads), own, batch, heads[0], width)
            return by_rank.permute(2, 1, 0, 3, 4).reshape(batch, own, sum(heads), width)
        out = received.new_empty(batch, own, sum(heads), width)
        parts = received.split_with_sizes([own * batch * width * n for n in heads])
        for place, part in zip(out.split_with_sizes(heads, 2), parts, strict=True):
            place.copy_(part.view(own, batch, place.shape[2], width).transpose(0, 1))
        return out


@lru_cache(maxsize=64)
def head_counts(count: int, ranks: int) -> list[int]:
    """Number of `count` heads on each rank."""
    return [len(share) for share in deal(count, ranks)]
