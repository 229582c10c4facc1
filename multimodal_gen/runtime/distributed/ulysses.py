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
        shares = [[len(share) for share in deal(n, self._size)] for n in streams]
        tokens = [sum(of_rank) for of_rank in zip(*shares, strict=True)]
        parts = self._to_heads(torch.stack((q, k, v), dim=2), heads, tokens)
        if lengths is None:
            q, k, v = torch.cat(parts, dim=1).unbind(2)
        else:  # valid keys must come first, so keys and values are put in whole order
            q = torch.cat([part[:, :, 0] for part in parts], dim=1)
            pieces = _by_stream([part[:, :, 1:] for part in parts], shares)
            k, v = torch.cat(pieces, dim=1).unbind(2)
        out = self._attention(q, k, v, lengths) if q.numel() else q
        return self._to_tokens(out, heads, tokens)

    def _to_heads(self, qkv: Tensor, heads: list[int], tokens: list[int]) -> list[Tensor]:
        """[B, S_local, 3, H, D] -> each rank's tokens, [B, S_rank, 3, H_local, D]."""
        batch, _, three, _, width = qkv.shape
        shapes = [torch.Size((batch, n, three, heads[self._rank], width)) for n in tokens]
        return all_to_all(qkv.split_with_sizes(heads, dim=3), shapes, self._group)

    def _to_tokens(self, out: Tensor, heads: list[int], tokens: list[int]) -> Tensor:
        """[B, S, H_local, D] -> [B, S_local, H, D]."""
        batch, _, _, width = out.shape
        shapes = [torch.Size((batch, tokens[self._rank], n, width)) for n in heads]
        return torch.cat(
            all_to_all(out.split_with_sizes(tokens, dim=1), shapes, self._group), dim=2
        )


def _by_stream(parts: Sequence[Tensor], shares: Sequence[Sequence[int]]) -> list[Tensor]:
    """Split each rank's tokens [B, S_rank, ...] into its `shares` of the streams, [stream][rank],
    and return all pieces in the order of the whole sequence."""
    by_rank = [
        part.split_with_sizes(list(of_rank), dim=1)
        for part, of_rank in zip(parts, zip(*shares, strict=True), strict=True)
    ]
    return [piece for stream in zip(*by_rank, strict=True) for piece in stream]


def make_sequence_parallel(mesh: Mesh, attention: AttentionFunction) -> SequenceParallel:
    """Create the object for this rank: trivial if its sequence is not shared."""
    axis = mesh.ulysses
    if axis.group is None:
        return SequenceParallel(attention)
    return UlyssesSequenceParallel(attention, axis.rank, axis.size, axis.group)
