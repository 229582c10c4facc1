"""Places of a sequence's tokens on the ranks that share it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from multimodal_gen.runtime.distributed.device_copies import tensor_of
from multimodal_gen.runtime.distributed.rows import deal


@dataclass(frozen=True, eq=False)
class TokenOrder:
    """Streams that are sharded one by one over ring times ulysses ranks.

    The ulysses ranks of one ring rank hold neighbouring shares, which together are its block.
    """

    tokens: tuple[int, ...]
    """Number of tokens of each ulysses rank in this block."""
    blocks: tuple[tuple[range, ...], ...]
    """Places in the whole sequence of each ring rank's tokens, by stream."""
    pieces: tuple[range, ...]
    """Places among the block's tokens, which are by ulysses rank and then by stream, of those by
    stream and then by ulysses rank."""

    @cached_property
    def sizes(self) -> list[int]:
        """Number of tokens of each ring rank's block."""
        return [sum(map(len, streams)) for streams in self.blocks]

    def by_stream(self, x: Tensor) -> Iterator[Tensor]:
        """Pieces of the block's tokens x [B, S, ...] in the order of the whole sequence.

        Valid tokens lead in that order: where they end in a stream, all before it are valid and
        none after it.
        """
        return (x.narrow(1, piece.start, len(piece)) for piece in self.pieces)

    def valid(self, lengths: Tensor) -> Sequence[Tensor]:
        """Number of valid tokens [B] of each block, from those of the whole sequence."""
        starts, sizes = _on_device(self, lengths.device)
        past: Tensor = lengths[:, None, None] - starts
        return torch.minimum(past.clamp_(min=0), sizes).sum(-1, dtype=torch.int32).unbind(1)


@lru_cache(maxsize=64)
def token_order(streams: tuple[int, ...], rank: int, ring: int, ulysses: int) -> TokenOrder:
    """Order of streams of these lengths at a rank of a ring of `ring` groups of `ulysses` ranks."""
    starts = list(accumulate(streams[:-1], initial=0))
    shares = [deal(length, ring * ulysses) for length in streams]  # [stream][rank]
    blocks = []
    for first in range(0, ring * ulysses, ulysses):
        last = first + ulysses - 1
        merged = (
            range(start + of_ranks[first].start, start + of_ranks[last].stop)
            for start, of_ranks in zip(starts, shares, strict=True)
        )
        blocks.append(tuple(merged))
    own = range(rank * ulysses, (rank + 1) * ulysses)
    counts = [[len(of_ranks[rank]) for of_ranks in shares] for rank in own]
    tokens = tuple(map(sum, counts))
    return TokenOrder(tokens, tuple(blocks), _by_stream(counts))


def _by_stream(counts: Sequence[Sequence[int]]) -> tuple[range, ...]:
    """Places of the pieces of `counts` tokens, [rank][stream]; those next to each other are one."""
    places = []
    start = 0
    for of_rank in counts:
        ends = list(accumulate(of_rank, initial=start))
        places.append([range(*each) for each in pairwise(ends)])
        start = ends[-1]
    pieces: list[range] = []
    for piece in (each for stream in zip(*places, strict=True) for each in stream if each):
        if pieces and pieces[-1].stop == piece.start:
            piece = range(pieces.pop().start, piece.stop)
        pieces.append(piece)
    return tuple(pieces)


@lru_cache(maxsize=64)
def _on_device(order: TokenOrder, device: torch.device) -> tuple[Tensor, Tensor]:
    """Starts and sizes of all blocks' parts, both [ring, streams]."""
    starts = [part.start for streams in order.blocks for part in streams]
    sizes = [len(part) for streams in order.blocks for part in streams]
    shape = (len(order.blocks), -1)
    first, count = (tensor_of(each, device, torch.int32).view(shape) for each in (starts, sizes))
    return first, count
