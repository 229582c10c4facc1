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


def all_gather_equal(own: Tensor, every: Tensor) -> Tensor:
    """Fill `every` [R, ...] with the tensors of all ranks, which have one shape."""
    _all_gather(every.view(-1), own.view(-1), group=dist.group.WORLD)
    return every


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


def swap_with_neighbours(first: Tensor, last: Tensor, above: Tensor, below: Tensor) -> None:
    """Send `first` to the previous rank, and `last` to the next one; receive `above` and `below` of
    them. They end with the first and last rank, where nothing is received."""
    rank, pairs = dist.get_rank(), ((-1, first, above), (1, last, below))
    passes = [
        dist.P2POp(way, tensor, rank + step)
        for step, outgoing, incoming in pairs
        if 0 <= rank + step < dist.get_world_size()
        for way, tensor in ((dist.isend, outgoing), (dist.irecv, incoming))
    ]
    for work in dist.batch_isend_irecv(passes) if passes else ():
        work.wait()


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


class Transfer:
    """A tensor that other ranks are sending, while this one does something else."""

    def __init__(self, received: Tensor, sent: Tensor, works: Sequence[dist.Work | None]) -> None:
        self._received = received
        self._sent = sent  # in use until it is sent
        self._works = works

    def wait(self) -> Tensor:
        """Return what was received. A GPU waits where it is used, and the host does not."""
        for work in self._works:
            if work is not None:
                work.wait()
        return self._received


def start_all_to_all(
    outgoing: Tensor,
    incoming: Tensor,
    sent: Sequence[int],
    received: Sequence[int],
    group: dist.ProcessGroup,
) -> Transfer:
    """Send `sent[j]` elements of `outgoing` to rank j, and receive `received[i]` of rank i, both in
    rank order. Numbers may differ and be 0; each rank knows its own beforehand."""
    work = dist.all_to_all_single(
        incoming.view(-1), outgoing.view(-1), received, sent, group=group, async_op=True
    )
    return Transfer(incoming, outgoing, [work])


def start_pass(outgoing: Tensor, incoming: Tensor, group: dist.ProcessGroup) -> Transfer:
    """Send a tensor to the group's next rank, and receive that of the previous one.

    Either may be empty: then nothing is sent, and nobody waits for it.
    """
    rank, size = group.rank(), group.size()
    ways = [
        (dist.isend, outgoing, (rank + 1) % size),
        (dist.irecv, incoming, (rank - 1) % size),
    ]
    passes = [
        dist.P2POp(way, tensor, group=group, group_peer=peer)
        for way, tensor, peer in ways
        if tensor.numel()
    ]
    works = dist.batch_isend_irecv(passes) if passes else []
    return Transfer(incoming, outgoing, works)
