"""Graphs that an engine wants, as data for the process that compiles them."""

from __future__ import annotations

import hashlib

import msgspec
import torch
from torch import nn

from multimodal_gen.runtime.layers.quantized.storage import KeptWeight
from multimodal_gen.runtime.models.compiled.example import Example
from multimodal_gen.version import __version__

BlockGeometry = dict[str, tuple[tuple[int, ...], str]]
"""Shape and dtype of each parameter."""


class BlockGraph(msgspec.Struct, frozen=True):
    """A kind of block with a kind of arguments."""

    component: str
    block: int
    """Number of one of these, in `repeated_blocks`."""
    parameters: BlockGeometry
    example: Example

    def key(self, device: str) -> str:
        """Equal for graphs that are the same, on devices of this name."""
        told = (__version__, torch.__version__, device, self.parameters, self.example.kind)
        return hashlib.sha256(repr(told).encode()).hexdigest()


def geometry_of(block: nn.Module) -> BlockGeometry:
    """Raises TypeError for a block with weights that keep a form of their own."""
    if any(isinstance(each, KeptWeight) for each in block.modules()):
        raise TypeError("quantised weights are not compiled")
    parameters = block.named_parameters()
    return {name: (tuple(p.shape), str(p.dtype).removeprefix("torch.")) for name, p in parameters}


def materialise(block: nn.Module, geometry: BlockGeometry, device: torch.device) -> None:
    """Give a block on the meta device empty parameters."""
    for name, (shape, dtype) in geometry.items():
        owner, _, leaf = name.rpartition(".")
        empty = torch.zeros(shape, dtype=getattr(torch, dtype), device=device)
        parameter = nn.Parameter(empty, requires_grad=False)
        block.get_submodule(owner).register_parameter(leaf, parameter)
