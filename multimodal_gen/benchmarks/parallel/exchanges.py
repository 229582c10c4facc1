"""Counts the bytes that a rank exchanges with others, and the exchanges."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from multimodal_gen.runtime.distributed.mesh import Axis, Mesh
from multimodal_gen.scheduling.parallel.traffic import AxisName

_AXES: Sequence[AxisName] = ("cfg", "ring", "ulysses", "tensor", "sequence")


@dataclass
class Exchanged:
    """Exchanges of this rank within one group."""

    sent: float = 0.0
    """Bytes of payload that left it, at least: those of the algorithm that moves fewest."""
    received: float = 0.0
    exchanges: int = 0


class ExchangeCounter(TorchDispatchMode):
    """Context manager that counts all collectives and messages of this rank, as torch dispatches
    them. Nothing is counted, and nothing costs anything, outside of it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found: defaultdict[tuple[str, str], Exchanged] = defaultdict(Exchanged)
        """By group and operation."""
        self.last_sent = 0.0
        """Bytes of the last exchange."""

    def on(self, mesh: Mesh) -> dict[AxisName, Exchanged]:
        """Exchanges along each axis; along `sequence`, what is gathered there."""
        found: defaultdict[AxisName, Exchanged] = defaultdict(Exchanged)
        for (group, operation), each in self._found.items():
            shared = [name for name in _AXES if _is_group(getattr(mesh, name), group)]
            if not shared:
                raise ValueError(f"{operation} along no axis of the mesh")
            gathers = "sequence" in shared and operation.startswith("allgather")
            total = found["sequence" if gathers else shared[0]]
            total.sent += each.sent
            total.received += each.received
            total.exchanges += each.exchanges
        return dict(found)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.namespace == "c10d":
            name = func.name().removeprefix("c10d::").strip("_")
            self._count(name, args)
        return func(*args, **(kwargs or {}))

    def _count(self, name: str, args: Sequence[Any]) -> None:
        if (payload := _PAYLOADS.get(name)) is None:
            raise ValueError(f"c10d::{name} is not counted")
        group = next(g for each in args if (g := _group(each)) is not None)
        counted = self._found[group.group_name, name]
        sent, received = payload(group, args)
        self.last_sent = max(sent, received)
        counted.sent += sent
        counted.received += received
        counted.exchanges += sent + received > 0 and name != "recv"  # sent at the same time


def _is_group(axis: Axis, name: str) -> bool:
    return axis.group is not None and axis.group.group_name == name


def _group(argument: Any) -> dist.ProcessGroup | None:
    if not isinstance(argument, torch.ScriptObject):
        return None
    try:
        return dist.ProcessGroup.unbox(argument)
    except RuntimeError:  # another kind of object
        return None


def _size(tensors: Any) -> int:
    """Bytes of a tensor, or of nested lists of them."""
    if isinstance(tensors, Tensor):
        return tensors.nbytes
    return sum(map(_size, tensors))


def _all_to_all(group: dist.ProcessGroup, args: Sequence[Any]) -> tuple[float, float]:
    received, sent, _, incoming, outgoing = args[:5]
    return tuple(  # type: ignore[return-value]
        _without_own(tensor, splits, group)
        for tensor, splits in ((sent, outgoing), (received, incoming))
    )


def _without_own(tensor: Tensor, splits: Sequence[int], group: dist.ProcessGroup) -> float:
    """Bytes of a tensor in pieces, but for the rank's own one."""
    if not splits:
        return tensor.nbytes * (group.size() - 1) / group.size()
    row = math.prod(tensor.shape[1:]) * tensor.itemsize
    return float((sum(splits) - splits[group.rank()]) * row)


def _gathered(group: dist.ProcessGroup, args: Sequence[Any]) -> tuple[float, float]:
    """All parts but its own: each rank passes on what it got."""
    moved = _size(args[1]) * (group.size() - 1.0)
    return moved, moved


def _scattered(group: dist.ProcessGroup, args: Sequence[Any]) -> tuple[float, float]:
    moved = _size(args[0]) * (group.size() - 1.0)
    return moved, moved


def _reduced(group: dist.ProcessGroup, args: Sequence[Any]) -> tuple[float, float]:
    """Sums of parts, then their gathering."""
    moved = 2.0 * _size(args[0]) * (group.size() - 1) / group.size()
    return moved, moved


def _broadcast(group: dist.ProcessGroup, args: Sequence[Any]) -> tuple[float, float]:
    own = group.rank() == args[2]
    return (float(_size(args[0])), 0.0) if own else (0.0, float(_size(args[0])))


_Payload = Callable[[dist.ProcessGroup, Sequence[Any]], tuple[float, float]]
_PAYLOADS: dict[str, _Payload] = {
    "alltoall_base": _all_to_all,
    "allgather": _gathered,
    "allgather_base": _gathered,
    "reduce_scatter_base": _scattered,
    "allreduce": _reduced,
    "broadcast": _broadcast,
    "send": lambda group, args: (float(_size(args[0])), 0.0),
    "recv": lambda group, args: (0.0, float(_size(args[0]))),
    "barrier": lambda group, args: (0.0, 0.0),
}
"""Bytes that a rank sends and receives, by operation."""
