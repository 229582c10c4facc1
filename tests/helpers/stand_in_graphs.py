"""Graphs on a CPU that keep the rules of CUDA's, and show where somebody breaks them.

What is captured is a list of operations with the tensors and numbers that they had. A replay does
them again, with those very tensors: an input that was not copied, or a number that was not one of
the graph's inputs, is the old one. Between replays all memory of the graph but its output is NaN,
as it is the pool's: whoever kept a tensor that was made during a capture reads NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from multimodal_gen.runtime.models.captured.graphs import Capturable

aten = torch.ops.aten
_WAITING = {
    aten._local_scalar_dense.default: "reads a number",
    aten.equal.default: "compares tensors",
    aten.is_nonzero.default: "reads a number",
    aten.item.default: "reads a number",
    aten.masked_select.default: "has a result whose shape is read",
    aten.nonzero.default: "has a result whose shape is read",
    aten.unique_dim.default: "has a result whose shape is read",
    aten._unique2.default: "has a result whose shape is read",
}
_FROM_HOST = {aten.lift_fresh.default, aten.lift_fresh_copy.default}
"""Operations by which `torch.tensor` makes a tensor of numbers of the host."""


class Operation(NamedTuple):
    func: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    made: Sequence[Tensor]
    """Its new tensors; empty if it changes what is there."""

    def run(self) -> None:
        result = self.func(*self.args, **self.kwargs)
        if not self.made:
            return
        for own, new in zip(self.made, _tensors(result), strict=True):
            own.copy_(new)


class StandInGraph:
    def __init__(self, operations: Sequence[Operation], output: Tensor) -> None:
        self._operations = operations
        self.output = output
        self.replays = 0
        made = {memory_of(tensor) for operation in operations for tensor in operation.made}
        used = (
            tensor
            for each in operations
            for tensor in (*_tensors(each.args), *_tensors(each.kwargs))
            if not tensor.is_mkldnn  # weights that are packed, only on a CPU
        )
        self.reads = {
            memory: tensor for tensor in used if (memory := memory_of(tensor)) not in made
        }
        """Tensors of others that it reads, by their memory."""
        self._spoil()
        _fill_with_nan(output)

    def replay(self) -> None:
        for operation in self._operations:
            operation.run()
        self._spoil()
        self.replays += 1

    def _spoil(self) -> None:
        """Fill the memory with NaN, as other graphs of the pool use it, too."""
        for operation in self._operations:
            for tensor in operation.made:
                if memory_of(tensor) != memory_of(self.output):
                    _fill_with_nan(tensor)


class StandInGraphs:
    """A backend that makes them; `fails` makes its next capture fail."""

    def __init__(self) -> None:
        self.made: list[StandInGraph] = []
        self.fails = False

    def capture(self, evaluate: Capturable) -> StandInGraph:
        evaluate()
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        with _HostReads(), _Recorder() as recorder:
            output = evaluate()
        self.made.append(StandInGraph(recorder.operations, output))
        return self.made[-1]

    @property
    def replays(self) -> int:
        return sum(graph.replays for graph in self.made)


class _HostReads(TorchFunctionMode):
    """Refuses reads of tensors of the CPU, which are no operations."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func in (Tensor.tolist, Tensor.numpy, Tensor.__array__):
            raise RuntimeError(f"{func.__name__} reads numbers: not permitted when capturing")
        return func(*args, **(kwargs or {}))


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _WAITING:
            raise RuntimeError(f"{func} {_WAITING[func]}: not permitted when capturing")
        if func in _FROM_HOST:
            raise RuntimeError("a tensor made of the host's numbers is frozen by capturing")
        result = func(*args, **kwargs)
        if func._schema.is_mutable:
            self.operations.append(Operation(func, args, kwargs, ()))
            return result
        given = {memory_of(tensor) for tensor in _tensors((args, kwargs))}
        made = [tensor for tensor in _tensors(result) if memory_of(tensor) not in given]
        if made:
            assert len(made) == len(_tensors(result)), func
            self.operations.append(Operation(func, args, kwargs, made))
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def memory_of(tensor: Tensor) -> int:
    """A number that is equal for tensors on the same memory, while they live."""
    return id(tensor) if tensor.is_mkldnn else tensor.untyped_storage()._cdata


def _fill_with_nan(tensor: Tensor) -> None:
    tensor.fill_(float("nan") if tensor.is_floating_point() else -1)
