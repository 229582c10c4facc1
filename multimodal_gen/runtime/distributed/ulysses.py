"""Sequence parallelism after DeepSpeed-Ulysses (Jacobs et al. 2023, arXiv:2309.14509).

Between attentions every rank holds a share of the sequence with all heads; within attention, an
all-to-all turns that into the whole sequence with a share of the heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from multimodal_gen.runtime.distributed.collectives import all_gather_shares, all_to_all
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.distributed.rows import deal

# attention(q, k, v, lengths) on [B, S, H, D]; see layers/attention
AttentionFunction = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


class SequenceParallel:
    """Trivial case: one rank holds the whole sequence. Base class of the shared one."""

    def __init__(self, attention: AttentionFunction) -> None:
        self._attention = attention

    def share(self, length: int) -> range:
        """Token range of a sequence of `length` on this rank; may be empty."""
        return range(length)

    def shard(self, x: Tensor, dim: int = 1) -> Tensor:
        """This rank's contiguous share of a sequence along `dim`; may be empty."""
        return x

    def gather(self, x: Tensor, length: int, dim: int = 1) -> Tensor:
        """Gather the whole sequence of `length` from all ranks' shares."""
        return x

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        streams: Sequence[int],
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Attention of this rank's share to the whole sequence, [B, S_local, H, D].

        `streams` are the full lengths of the sequences that were sharded one by one and then
        concatenated (FLUX: text, image). `lengths` [B] is the number of valid tokens per row, from
        the start of the whole sequence, streams in order.
        """
        return self._attention(q, k, v, lengths)

    def cross_attention(
        self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Attention of this rank's share to another sequence, which every rank holds in full."""
        return self._attention(q, k, v, lengths) if q.numel() else q


class UlyssesSequenceParallel(SequenceParallel):
    """The ranks of a ulysses group share the sequence, and the heads within attention."""

    def __init__(
        self, attention: AttentionFunction, rank: int, size: int, group: dist.ProcessGroup
    ) -> None:
        super().__init__(attention)
        self._rank = rank
        self._size = size
        self._group = group

    def share(self, length: int) -> range:
        return deal(length, self._size)[self._rank]

    def shard(self, x: Tensor, dim: int = 1) -> Tensor:
        share = self.share(x.shape[dim])
        return x.narrow(dim, share.start, len(share))

    def gather(self, x: Tensor, length: int, dim: int = 1) -> Tensor:
        counts = [len(share) for share in deal(length, self._size)]
        return all_gather_shares(x, counts, self._group, dim)

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        streams: Sequence[int],
        lengths: Tensor | None = None,
    ) -> Tensor:
        heads = [len(share) for share in deal(q.shape[2], self._size)]
        tokens = self._tokens(streams)
        q, k, v = self._to_heads(torch.stack((q, k, v), dim=2), heads, tokens).unbind(2)
        if lengths is not None:
            order = self._whole_order(streams, q.device)
            k, v = k[:, order], v[:, order]
        out = self._attention(q, k, v, lengths) if q.numel() else q
        return self._to_tokens(out, heads, tokens)

    def _tokens(self, streams: Sequence[int]) -> list[int]:
        """Number of tokens of all streams together per rank."""
        shares = [deal(length, self._size) for length in streams]
        return [sum(map(len, of_rank)) for of_rank in zip(*shares, strict=True)]

    def _to_heads(self, qkv: Tensor, heads: list[int], tokens: list[int]) -> Tensor:
        """[B, S_local, 3, H, D] -> [B, S, 3, H_local, D], tokens in rank order."""
        batch, _, three, _, width = qkv.shape
        shapes = [torch.Size((batch, n, three, heads[self._rank], width)) for n in tokens]
        return torch.cat(all_to_all(qkv.split_with_sizes(heads, dim=3), shapes, self._group), dim=1)

    def _to_tokens(self, out: Tensor, heads: list[int], tokens: list[int]) -> Tensor:
        """[B, S, H_local, D] -> [B, S_local, H, D]."""
        batch, _, _, width = out.shape
        shapes = [torch.Size((batch, tokens[self._rank], n, width)) for n in heads]
        return torch.cat(
            all_to_all(out.split_with_sizes(tokens, dim=1), shapes, self._group), dim=2
        )

    def _whole_order(self, streams: Sequence[int], device: torch.device) -> Tensor:
        """Index of each token of the whole sequence in rank order."""
        offsets = [sum(streams[:i]) for i in range(len(streams))]
        by_rank = [
            offset + token
            for rank in range(self._size)
            for offset, length in zip(offsets, streams, strict=True)
            for token in deal(length, self._size)[rank]
        ]
        return torch.tensor(by_rank, device=device).argsort()


def make_sequence_parallel(mesh: Mesh, attention: AttentionFunction) -> SequenceParallel:
    """Create the object for this rank: trivial if its sequence is not shared."""
    if mesh.ulysses_group is None:
        return SequenceParallel(attention)
    return UlyssesSequenceParallel(
        attention, mesh.ulysses_rank, mesh.ulysses_size, mesh.ulysses_group
    )
