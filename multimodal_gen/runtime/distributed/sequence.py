"""Sequences that ranks share: the tokens between attentions, and attention itself.

Unified sequence parallelism (Fang and Zhao 2024, arXiv:2405.07719): Ulysses within groups of ranks,
over a ring of those groups, over the attention of one rank. Either may be left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.collectives import all_gather_shares
from multimodal_gen.runtime.distributed.local_attention import Attention, PartialOutput, Prefix
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.distributed.ring import RingAttention, merged
from multimodal_gen.runtime.distributed.rows import deal
from multimodal_gen.runtime.distributed.token_order import TokenOrder, token_order
from multimodal_gen.runtime.distributed.ulysses import Exchange, HeadExchange, NoExchange


class Attending(Protocol):
    """An attention whose values are given: its queries and keys follow, then its result.

    Between the calls ranks exchange what they have; whatever else there is to do belongs there.
    """

    def start(self, qk: Tensor) -> None:
        """Give queries and keys [B, S_local, 2, H, D], of the values' dtype or float32."""

    def wait(self) -> Tensor:
        """Return the result [B, S_local, H * D], of the values' dtype."""


class SequenceParallel:
    """Trivial case: one rank holds the whole sequence. Base class of the shared one."""

    exchanges_heads = False
    """Whether queries, keys and values travel before there is any attention."""

    def __init__(self, attention: Attention) -> None:
        self._attention = attention

    def share(self, length: int) -> range:
        """Token range of a sequence of `length` on this rank; may be empty."""
        return range(length)

    def shard(self, x: Tensor, dim: int = 1) -> Tensor:
        """This rank's contiguous share of a sequence along `dim`; may be empty."""
        return x

    def shard_each(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """This rank's shares of several sequences, which follow each other in x [B, S, ...]."""
        return x

    def gather(self, x: Tensor, length: int, dim: int = 1) -> Tensor:
        """Gather the whole sequence of `length` from all ranks' shares."""
        return x

    def own_heads(self, x: Tensor) -> Tensor:
        """The heads of x [..., H, D] with which this rank attends to a whole sequence."""
        return x

    def attend(
        self,
        v: Tensor,
        streams: Sequence[int],
        lengths: Tensor | None = None,
        prefix: Prefix | None = None,
    ) -> Attending:
        """Begin attention of this rank's share to the whole sequence, with values [B, S_local, H,
        D].

        `streams` are the full lengths of the sequences that were sharded one by one and then
        concatenated (FLUX: text, image). `lengths` [B] is the number of valid tokens per row, from
        the start of the whole sequence, streams in order. Only without it there may be a `prefix`.
        """
        return _AttendingAlone(self._attention, v, lengths, prefix)

    def cross_attention(
        self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Attention of this rank's share to another sequence, which every rank holds in full."""
        return self._attention(q, k, v, lengths) if q.numel() else q

    def attention_to_shares(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of queries that every rank holds in full to a sequence that ranks share: `k`
        and `v` [B, S_local, H, D] are of this rank's share. All ranks get equal bits."""
        return self._attention(q, k, v) if q.numel() else q


class _AttendingAlone:
    def __init__(
        self, attention: Attention, v: Tensor, lengths: Tensor | None, prefix: Prefix | None
    ) -> None:
        self._attention = attention
        self._v = v
        self._lengths = lengths
        self._prefix = prefix

    def start(self, qk: Tensor) -> None:
        q, k = qk.to(self._v.dtype).unbind(2)
        if self._prefix is None:
            self._out = self._attention(q, k, self._v, self._lengths)
        else:
            self._out = self._attention(q, *self._prefix.behind(k, self._v))

    def wait(self) -> Tensor:
        return self._out.flatten(2)


class SharedSequence(SequenceParallel):
    """The ranks of the ring and ulysses axes share the sequence."""

    def __init__(self, attention: Attention, mesh: Mesh) -> None:
        super().__init__(attention)
        self._axis = mesh.sequence
        self._block = (mesh.ring.rank, mesh.ring.size, mesh.ulysses.size)
        self._on_heads: OnHeads = _OneBlock(attention)
        if mesh.ring.group is not None:
            self._on_heads = RingAttention(attention, mesh.ring)
        self.exchanges_heads = mesh.ulysses.group is not None
        self._exchange: Exchange = NoExchange()
        if mesh.ulysses.group is not None:
            self._exchange = HeadExchange(mesh.ulysses)

    def share(self, length: int) -> range:
        return deal(length, self._axis.size)[self._axis.rank]

    def shard(self, x: Tensor, dim: int = 1) -> Tensor:
        share = self.share(x.shape[dim])
        return x.narrow(dim, share.start, len(share))

    def shard_each(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        lengths = [n for n in counts if n]
        return torch.cat([self.shard(each) for each in x.split(lengths, dim=1)], dim=1)

    def gather(self, x: Tensor, length: int, dim: int = 1) -> Tensor:
        assert self._axis.group is not None
        counts = [len(share) for share in deal(length, self._axis.size)]
        return all_gather_shares(x, counts, self._axis.group, dim)

    def own_heads(self, x: Tensor) -> Tensor:
        return self._exchange.own_heads(x)

    def attend(
        self,
        v: Tensor,
        streams: Sequence[int],
        lengths: Tensor | None = None,
        prefix: Prefix | None = None,
    ) -> Attending:
        order = token_order(tuple(streams), *self._block)
        return _AttendingTogether(self._exchange, self._on_heads, order, v, lengths, prefix)

    def attention_to_shares(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Each rank attends to its share, and all merge the results, of few queries."""
        if not q.numel():
            return q
        scores = q.new_full((*q.shape[:-1], 1), float("-inf"), dtype=torch.float32)
        part = PartialOutput(torch.zeros_like(q), scores.squeeze(-1))
        if k.numel():
            part = self._attention.partial(q, k, v)
        own = torch.cat((part.out.float(), part.log_sum_exp.unsqueeze(-1)), dim=-1)[None]
        every = self.gather(own, self._axis.size, 0)
        parts = [PartialOutput(each[..., :-1], each[..., -1]) for each in every]
        return reduce(merged, parts).out.to(q.dtype)


class _AttendingTogether:
    def __init__(
        self,
        exchange: Exchange,
        on_heads: OnHeads,
        order: TokenOrder,
        v: Tensor,
        lengths: Tensor | None,
        prefix: Prefix | None,
    ) -> None:
        self._prefix = prefix
        self._exchange = exchange
        self._on_heads = on_heads
        self._order = order
        self._given = v
        self._lengths = lengths
        self._values = exchange.to_heads(v.unsqueeze(2), v, order.tokens)

    def start(self, qk: Tensor) -> None:
        self._queries_keys = self._exchange.to_heads(qk, self._given, self._order.tokens)

    def wait(self) -> Tensor:
        q, k = self._queries_keys.wait().unbind(2)
        v = self._values.wait().squeeze(2)
        out = self._on_heads(q, k, v, self._order, self._lengths, self._prefix)
        heads = self._given.shape[2]
        return self._exchange.to_tokens(out, self._order.tokens, heads).wait().flatten(2)


class OnHeads(Protocol):
    """Attention of the queries [B, S, H, D] of a ring rank's block to the keys of all blocks, and
    of a prefix."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        order: TokenOrder,
        lengths: Tensor | None,
        prefix: Prefix | None,
    ) -> Tensor: ...


class _OneBlock:
    """A block that is the whole sequence."""

    def __init__(self, attention: Attention) -> None:
        self._attention = attention

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        order: TokenOrder,
        lengths: Tensor | None,
        prefix: Prefix | None,
    ) -> Tensor:
        if not q.numel():
            return q
        if prefix is not None:
            return self._attention(q, *prefix.behind(k, v))
        if lengths is not None and len(order.pieces) > 1:  # valid keys must lead
            k, v = (torch.cat([*order.by_stream(x)], dim=1) for x in (k, v))
        return self._attention(q, k, v, lengths)


def make_sequence_parallel(mesh: Mesh, attention: Attention) -> SequenceParallel:
    """Create the object for this rank: trivial if its sequence is not shared."""
    if mesh.sequence.group is None:
        return SequenceParallel(attention)
    return SharedSequence(attention, mesh)
