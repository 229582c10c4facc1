"""How modules take their weights from the tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Segment(NamedTuple):
    """The rows of a parameter that one tensor of the checkpoint gives."""

    name: str
    start: int
    rows: int


class Sources(Protocol):
    """The tensors of a checkpoint that make up one parameter, one after another along dim 0."""

    @property
    def segments(self) -> Sequence[Segment]: ...

    def read(self, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
        """All of them as one tensor; holds no second copy of it on the way."""


def take_parameters(
    module: nn.Module, sources: Mapping[str, Sources], dtype: torch.dtype, device: torch.device
) -> None:
    """Give the module's own parameters and buffers, by name, what `sources` has for them.

    A module with a method `take` of this form, without `module`, takes them in its own way.
    """
    own = {name: getattr(module, name) for name in sources}
    state = {name: sources[name].read(own[name].shape, dtype, device) for name in sources}
    module.load_state_dict(state, strict=False, assign=True)
