"""Weights that move together, in one piece of the device's memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

_ALIGNMENT = 512
"""Bytes: as the device's allocator aligns, so that the same kernels are chosen."""

Copy = tuple[Tensor, Tensor]
"""A tensor on the device, and the one on the host that it becomes a copy of; both are flat."""


class _Place(NamedTuple):
    """A parameter or buffer of a module."""

    module: nn.Module
    name: str
    tensor: Tensor

    def put(self, tensor: Tensor) -> None:
        """Let the module use `tensor` in its place."""
        if self.name in self.module._parameters:
            if not isinstance(tensor, nn.Parameter):
                tensor = nn.Parameter(tensor, requires_grad=False)
            self.module._parameters[self.name] = tensor
        else:
            self.module._buffers[self.name] = tensor


class Bundle:
    """Parameters and buffers of modules, whose host copy stays where it was loaded: in memory, or
    in the pages of a file."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        """`modules` without their submodules."""
        self._places = [place for module in modules for place in _places(module)]
        self._starts: dict[int, int] = {}
        end = 0
        for place in self._places:
            if id(place.tensor) not in self._starts:  # may be shared
                self._starts[id(place.tensor)] = end
                end += -(-_size(place.tensor) // _ALIGNMENT) * _ALIGNMENT
        self.size = end
        """Bytes on the device."""

    def place(self, memory: Tensor) -> list[Copy]:
        """Let the modules use `memory` (uint8, at least `size`), and return what must be copied."""
        copies: dict[int, Copy] = {}
        made: dict[int, Tensor] = {}
        for place in self._places:
            key = id(place.tensor)
            if key not in made:
                start = self._starts[key]
                flat = memory[start : start + _size(place.tensor)].view(place.tensor.dtype)
                copies[key] = (flat, _flat(place.tensor))
                shape = place.tensor.shape, _strides(place.tensor)
                made[key] = nn.Parameter(flat.as_strided(*shape), requires_grad=False)
            place.put(made[key] if place.name in place.module._parameters else made[key].data)
        return [copy for copy in copies.values() if copy[1].numel()]

    def restore(self) -> None:
        """Let the modules use the host copy."""
        for place in self._places:
            place.put(place.tensor)


def bundle_of(modules: Sequence[nn.Module], without: Iterable[nn.Module] = ()) -> Bundle:
    """Bundle of modules and their submodules, but for those of `without`."""
    left_out = {each for module in without for each in module.modules()}
    every = dict.fromkeys(each for module in modules for each in module.modules())
    return Bundle(each for each in every if each not in left_out)


def _places(module: nn.Module) -> list[_Place]:
    own = (*module._parameters.items(), *module._buffers.items())
    return [_Place(module, name, tensor) for name, tensor in own if tensor is not None]


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _is_dense(tensor: Tensor) -> bool:
    """True if its numbers are next to each other in memory, in whatever order."""
    steps = sorted(zip(tensor.stride(), tensor.shape, strict=True))
    expected = 1
    for stride, length in steps:
        if length == 1:
            continue
        if stride != expected:
            return False
        expected *= length
    return True


def _flat(tensor: Tensor) -> Tensor:
    """Its numbers in their order in memory, without a copy where they are dense."""
    tensor = tensor.detach()
    if not _is_dense(tensor):
        return tensor.contiguous().view(-1)
    return tensor.as_strided((tensor.numel(),), (1,))


def _strides(tensor: Tensor) -> tuple[int, ...]:
    if _is_dense(tensor):
        return tensor.stride()
    return torch.empty(tensor.shape, device="meta").stride()
