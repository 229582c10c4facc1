"""Counts what a rank computes and exchanges in one evaluation, on tensors without data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from multimodal_gen.benchmarks.device.stand_ins import fill_randomly
from multimodal_gen.benchmarks.parallel.exchanges import ExchangeCounter
from multimodal_gen.benchmarks.parallel.projected_models import ProjectedModel
from multimodal_gen.benchmarks.parallel.timeline import Timeline
from multimodal_gen.configs.parallel import ParallelConfig
from multimodal_gen.runtime.distributed.collectives import Transfer
from multimodal_gen.runtime.distributed.local_attention import PartialOutput
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.distributed.rows import gather_rows
from multimodal_gen.runtime.layers.fused import choice
from multimodal_gen.runtime.layers.tensor_parallel.parts import make_parts
from multimodal_gen.scheduling.parallel.rank_work import RankWork
from multimodal_gen.scheduling.parallel.traffic import Traffic

_DEVICE = torch.device("meta")
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention


class _WorkCounter(ExchangeCounter):
    def __init__(self, timelines: Sequence[Timeline]) -> None:
        super().__init__()
        self.operations = 0.0
        self.passes = 0.0
        self.launches = 0
        self._timelines = timelines
        self._ends: dict[object, list[float]] = {}
        """When what others send will be there, by its memory."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if func.namespace == "c10d":
            self._exchange(func.overloadpacket.__name__, args)
        if func.namespace != "aten" or func.is_view or _only_allocates(func):
            return result
        moved = sum(map(_moved, tree_leaves((args, kwargs, result))))
        if (count := flop_registry.get(func.overloadpacket)) is not None:
            self._launch(count(*args, **kwargs, out_val=result), moved)
        else:
            self._launch(0.0, moved)
        return result

    def _launch(self, operations: float, moved: int) -> None:
        self.launches += 1
        self.operations += operations
        self.passes += 0 if operations else moved
        for timeline in self._timelines:
            timeline.operation(operations, moved)

    def _exchange(self, name: str, args: Sequence[Any]) -> None:
        if name == "send":  # at the same time as what is received
            return
        ends = [timeline.exchange(self.last_sent) for timeline in self._timelines]
        if name == "recv_" or (name == "alltoall_base_" and all(args[5:6])):
            received = args[0][0] if name == "recv_" else args[0]
            self._ends[_memory(received)] = ends
        else:
            self._wait(ends)

    def wait(self, transfer: Any) -> Tensor:
        """In place of `Transfer.wait`."""
        self._wait(self._ends.pop(_memory(transfer._received), ()))
        received: Tensor = transfer._received
        return received

    def _wait(self, ends: Sequence[float]) -> None:
        for timeline, end in zip(self._timelines, ends, strict=False):
            timeline.wait(end)

    def rms_norm(self, x: Tensor, shape: Any, weight: Any = None, eps: Any = None) -> Tensor:
        """One operation, as on a GPU; on the meta device torch makes several of it."""
        return self.one((x, weight), torch.empty_like(x))

    def one(self, inputs: Sequence[Any], output: Tensor) -> Tensor:
        """Count one operation that makes `output`."""
        self._launch(0.0, sum(map(_moved, (*inputs, output))))
        return output


class _FusedKernels:
    """The shapes of what a GPU's fused kernels give: see `fused.choice.Kernels`."""

    def __init__(self, counter: _WorkCounter) -> None:
        self._counter = counter

    def norm(
        self, x: Tensor, scale: Tensor, shift: Tensor | None, eps: float, *, centred: bool = True
    ) -> Tensor:
        return self._counter.one((x, scale, shift), torch.empty_like(x))

    def add_norm(
        self,
        x: Tensor,
        gate: Tensor,
        update: Tensor,
        scale: Tensor,
        shift: Tensor | None,
        eps: float,
        *,
        centred: bool = True,
    ) -> tuple[Tensor, Tensor]:
        total = torch.empty_like(x)
        inputs = (x, gate, update, scale, shift, total)
        return total, self._counter.one(inputs, torch.empty_like(x))

    def turned(
        self,
        qk: Tensor,
        weights: Sequence[Tensor],
        boundary: int,
        eps: float,
        table: Tensor | None,
        *,
        across: bool = False,
    ) -> Tensor:
        return self._counter.one((qk, *weights, table), torch.empty(qk.shape, dtype=qk.dtype))


def _memory(tensor: Tensor) -> object:
    return tensor.untyped_storage()._cdata


def _only_allocates(func: Any) -> bool:
    name: str = func.overloadpacket.__name__
    return name.startswith(("empty", "new_empty", "detach", "_unsafe_view"))


def _moved(leaf: Any) -> int:
    """Bytes of a tensor's memory: what is broadcast is read once."""
    if not isinstance(leaf, Tensor):
        return 0
    sizes = zip(leaf.shape, leaf.stride(), strict=True)
    return math.prod(size for size, stride in sizes if stride) * leaf.itemsize


@contextmanager
def pretended_ranks(count: int) -> Iterator[None]:
    """Let this process be the first of `count` ranks, whose exchanges move nothing."""
    backends = "cpu:fake,cuda:fake,meta:fake"
    dist.init_process_group(backends, rank=0, world_size=count, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def work_of(
    projected: ProjectedModel, on: ParallelConfig, timelines: Sequence[Timeline] = ()
) -> RankWork:
    """Count an evaluation of the first rank, which has the largest shares, and time it.

    `on` is for as many ranks as are pretended, or for one.
    """
    mesh = Mesh.create(0, **asdict(on))
    rows = math.ceil(projected.rows / on.cfg)
    with torch.no_grad(), _DEVICE:
        model = projected.make(projected.config, make_parts(mesh, _FlashAttention())).eval()
        fill_randomly(model.requires_grad_(False), torch.bfloat16, _DEVICE)
        inputs = projected.inputs(model, rows, _DEVICE)
        counter = _WorkCounter(timelines)
        norms = mock.patch.object(F, "rms_norm", counter.rms_norm)
        fused = mock.patch.object(choice, "kernels_for", return_value=_FusedKernels(counter))
        waits = mock.patch.object(Transfer, "wait", lambda transfer: counter.wait(transfer))
        with counter, norms, fused, waits:
            gather_rows(model(**inputs), projected.rows, mesh)
    return RankWork(
        operations=counter.operations,
        passes=counter.passes,
        launches=counter.launches,
        exchanged={
            axis: Traffic(max(each.sent, each.received), each.exchanges)
            for axis, each in counter.on(mesh).items()
        },
    )


class _FlashAttention:
    """The shapes of a flash attention's outputs."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.partial(q, k, v).out

    def partial(
        self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None
    ) -> PartialOutput:
        out, log_sum_exp = _FLASH(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))[:2]
        return PartialOutput(out.transpose(1, 2), log_sum_exp.transpose(1, 2))
