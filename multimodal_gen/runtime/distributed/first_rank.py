"""Named tensors that the first rank makes and all others receive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor

from multimodal_gen.errors import GenerationFailed, MultimodalGenError, OutOfMemory
from multimodal_gen.messages.reply import WireError
from multimodal_gen.runtime.distributed.collectives import from_first_rank, smallest
from multimodal_gen.runtime.distributed.mesh import Mesh

Branches = dict[str, dict[str, Tensor]]
"""Tensors by branch and name."""


class _Shape(msgspec.Struct, frozen=True, array_like=True):
    dtype: str
    sizes: tuple[int, ...]


class _Contents(msgspec.Struct, frozen=True, kw_only=True):
    """Header of what follows: each tensor once, though branches may share it; or an error."""

    tensors: tuple[_Shape, ...] = ()
    places: dict[str, dict[str, int]] = {}
    error: WireError | None = None


class Sharing(Protocol):
    """Gives every rank what one of them makes."""

    def __call__(self, make: Callable[[], Branches]) -> Branches:
        """Return the result of `make`, which only the first rank calls.

        Collective. What `make` raises is raised on every rank; errors of no class of ours are a
        GenerationFailed on the others.
        """


def make_sharing(mesh: Mesh, device: torch.device) -> Sharing:
    """Return the object for this rank."""
    if mesh.world_size == 1:
        return lambda make: make()
    return _share if mesh.rank == 0 else lambda make: _receive(device)


def _share(make: Callable[[], Branches]) -> Branches:
    try:
        made = make()
    except Exception as raised:
        from_first_rank(msgspec.msgpack.encode(_Contents(error=_described(raised))))
        raise
    tensors = list({id(each): each for named in made.values() for each in named.values()}.values())
    numbers = {id(each): number for number, each in enumerate(tensors)}
    places = {
        branch: {name: numbers[id(each)] for name, each in named.items()}
        for branch, named in made.items()
    }
    shapes = tuple(_Shape(str(each.dtype), tuple(each.shape)) for each in tensors)
    from_first_rank(msgspec.msgpack.encode(_Contents(tensors=shapes, places=places)))
    _agree(able=True)
    for tensor in tensors:
        _broadcast(tensor)
    return made


def _receive(device: torch.device) -> Branches:
    contents = msgspec.msgpack.decode(from_first_rank(b""), type=_Contents)
    if contents.error is not None:
        raise contents.error.exception()
    try:
        tensors = [_empty(shape, device) for shape in contents.tensors]
    except Exception:
        _agree(able=False)
        raise
    _agree(able=True)
    for tensor in tensors:
        _broadcast(tensor)
    return {
        branch: {name: tensors[number] for name, number in named.items()}
        for branch, named in contents.places.items()
    }


def _empty(shape: _Shape, device: torch.device) -> Tensor:
    dtype = getattr(torch, shape.dtype.removeprefix("torch."))
    return torch.empty(shape.sizes, dtype=dtype, device=device)


def _agree(*, able: bool) -> None:
    """Raise OutOfMemory on a rank that has room for the tensors if another has none, and so does
    not wait for them."""
    if not smallest(able, torch.device("cpu")) and able:
        raise OutOfMemory("the encoded prompt does not fit into the memory of every rank")


def _broadcast(tensor: Tensor) -> None:
    """Send or receive a tensor's bytes: not every backend knows every type."""
    if tensor.numel():
        dist.broadcast(tensor.contiguous().reshape(-1).view(torch.uint8), src=0)


def _described(raised: Exception) -> WireError:
    if isinstance(raised, MultimodalGenError):
        return WireError.of(raised)
    return WireError.of(GenerationFailed(f"{type(raised).__name__}: {raised}"[:500]))
