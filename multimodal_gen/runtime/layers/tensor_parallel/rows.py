"""Loads some rows of a module's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from multimodal_gen.runtime.layers.take import Sources


def rows_of(
    module: nn.Module, sources: Mapping[str, Sources], own: Sequence[range]
) -> dict[str, Sources]:
    """Sources of rows `own` of its parameters, for which it gets parameters of that size."""
    for name in sources:
        resize(module, name, (sum(map(len, own)), *getattr(module, name).shape[1:]))
    return {name: each.rows(own) for name, each in sources.items()}


def resize(module: nn.Module, name: str, shape: Sequence[int]) -> None:
    """Replace a parameter that is not loaded by one of another shape."""
    parameter = getattr(module, name)
    empty = torch.empty(*shape, dtype=parameter.dtype, device="meta")
    module.register_parameter(name, nn.Parameter(empty, requires_grad=parameter.requires_grad))
