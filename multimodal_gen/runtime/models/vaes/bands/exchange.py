"""Exchanges of ranks while each holds a band of rows of every feature map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.runtime.distributed.collectives import all_gather_equal, swap_with_neighbours
from multimodal_gen.runtime.distributed.device_copies import copied
from multimodal_gen.runtime.distributed.rows import deal


class Bands:
    """Bands of all ranks, from the top down in rank order. Each rank makes the same calls.

    Everything that a call needs is allocated before it is counted and exchanged, so a rank that
    fails knows which calls the others still wait for.
    """

    def __init__(self, rank: int, ranks: int, device: torch.device) -> None:
        self.rank, self.ranks = rank, ranks
        self.device = device
        self.exchanges = 0
        """Number since `start`."""
        self.shares: Sequence[range] = ()
        """Rows of latents of each rank."""
        self.fractions = torch.empty(0)
        """Those of all rows that each rank has, float64 [R]."""

    def start(self, rows: int) -> None:
        """Begin with latents of so many rows, at least one for each rank."""
        self.exchanges = 0
        self.shares = deal(rows, self.ranks)
        fractions = torch.tensor([len(share) / rows for share in self.shares], dtype=torch.float64)
        self.fractions = copied(fractions, self.device)

    def length(self, own: int, rank: int) -> int:
        """Length that is `own` for this rank, and proportional to its rows, for another rank."""
        return own // len(self.shares[self.rank]) * len(self.shares[rank])

    def beyond(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """Give neighbours this band's first and last rows; return the rows above and below it,
        which are 0 beyond the frame."""
        first, last = first.contiguous(), last.contiguous()
        above, below = torch.zeros_like(first), torch.zeros_like(last)
        self.exchanges += 1
        swap_with_neighbours(first, last, above, below)
        return above, below

    def all(self, own: Tensor) -> Tensor:
        """[R, ...] of all ranks' tensors, which are of one shape."""
        own = own.contiguous()
        every = own.new_empty((self.ranks, *own.shape))
        self.exchanges += 1
        return all_gather_equal(own, every)

    def tokens(self, own: Tensor) -> Tensor:
        """Concatenate all bands' tokens [B, n, C], a number of them for each row."""
        lengths = [self.length(own.shape[1], rank) for rank in range(self.ranks)]
        every = self.all(F.pad(own, (0, 0, 0, max(lengths) - own.shape[1])))
        return torch.cat([each[:, :n] for each, n in zip(every, lengths, strict=True)], dim=1)


class LostBands(Bands):
    """Exchanges of a rank whose decoding has failed: those that it has not made, with NaN.

    It is called with tensors on the meta device, which have shapes and take no memory.
    """

    def __init__(self, bands: Bands) -> None:
        super().__init__(bands.rank, bands.ranks, torch.device("meta"))
        self._bands = bands

    def beyond(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        self.exchanges += 1
        if self.exchanges > self._bands.exchanges:
            self._bands.beyond(self.lost(first), self.lost(last))
        return torch.empty_like(first), torch.empty_like(last)

    def all(self, own: Tensor) -> Tensor:
        self.exchanges += 1
        if self.exchanges > self._bands.exchanges:
            self._bands.all(self.lost(own))
        return own.new_empty((self.ranks, *own.shape))

    def lost(self, values: Tensor) -> Tensor:
        """NaN instead of values that only have a shape."""
        return torch.full(values.shape, torch.nan, dtype=values.dtype, device=self._bands.device)
