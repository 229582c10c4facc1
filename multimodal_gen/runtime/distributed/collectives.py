"""Collectives of torch.distributed for shares of unequal size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

# torch 2.13 renamed it and warns about the old name; 2.11 and 2.12 only have the old one.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


def all_gather_shares(
    local: Tensor, counts: Sequence[int], group: dist.ProcessGroup, dim: int = 0
) -> Tensor:
    """Concatenate every rank's share along `dim`, in rank order; `counts` are their lengths there.

    A rank with an empty share passes a tensor of length 0. All ranks get equal bits.
    """
    largest = max(counts)
    local = local.movedim(dim, 0)
    padded = F.pad(local, (0, 0) * (local.dim() - 1) + (0, largest - local.shape[0]))
    gathered = local.new_empty((len(counts) * largest, *local.shape[1:]))
    _all_gather(gathered, padded.contiguous(), group=group)
    if any(count != largest for count in counts):
        slots = gathered.split_with_sizes([largest] * len(counts))
        gathered = torch.cat([s[:n] for s, n in zip(slots, counts, strict=True)])
    return gathered.movedim(0, dim)


def all_reduce(part: Tensor, how: dist.ReduceOp.RedOpType, group: dist.ProcessGroup) -> Tensor:
    """Reduce the ranks' tensors, of one shape, in place; all ranks get equal bits."""
    if part.numel():
        dist.all_reduce(part, op=how, group=group)
    return part


def send(tensor: Tensor, rank: int) -> None:
    """Send a tensor to a rank, which waits for it in `receive`."""
    dist.send(tensor.contiguous(), rank)


def receive(buffer: Tensor, rank: int) -> Tensor:
    """Fill `buffer`, of the shape that the rank sends."""
    dist.recv(buffer, rank)
    return buffer


def smallest(number: int, device: torch.device) -> int:
    """The smallest of all ranks' numbers."""
    if not dist.is_initialized():
        return number
    least = torch.tensor(number, device=device)
    dist.all_reduce(least, op=dist.ReduceOp.MIN)
    return int(least)


def from_first_rank(message: bytes) -> bytes:
    """The first rank's message, on every rank."""
    if not dist.is_initialized():
        return message
    size = torch.tensor([len(message)])
    dist.broadcast(size, src=0)
    sent = torch.zeros(int(size), dtype=torch.uint8)
    if dist.get_rank() == 0:
        sent = torch.frombuffer(bytearray(message), dtype=torch.uint8)
    dist.broadcast(sent, src=0)
    return sent.numpy().tobytes()


def all_to_all(
    pieces: Sequence[Tensor], received: Sequence[torch.Size], group: dist.ProcessGroup
) -> list[Tensor]:
    """Send `pieces[j]` to rank j; returns the pieces from each rank i, of shape `received[i]`.

    Pieces may differ in shape and be empty. Each rank knows its shapes beforehand.
    """
    outgoing = torch.cat([piece.reshape(-1) for piece in pieces])
    sizes = [shape.numel() for shape in received]
    incoming = outgoing.new_empty(sum(sizes))
    dist.all_to_all_single(incoming, outgoing, sizes, [p.numel() for p in pieces], group=group)
    parts = incoming.split_with_sizes(sizes)
    return [part.view(shape) for part, shape in zip(parts, received, strict=True)]
