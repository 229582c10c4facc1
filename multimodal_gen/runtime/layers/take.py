"""Protocol by which modules take their weights from a checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from multimodal_gen.runtime.layers.quantized.storage import Storage


class Segment(NamedTuple):
    """Rows of a parameter that come from one tensor of the checkpoint."""

    name: str
    start: int
    rows: int


class Sources(Protocol):
    """Tensors of a checkpoint that make up one parameter, concatenated along dim 0."""

    @property
    def segments(self) -> Sequence[Segment]: ...

    def rows(self, own: Sequence[range]) -> Sources:
        """Sources of these rows alone, one below the other."""

    def columns(self, own: Sequence[range]) -> Sources:
        """Sources of these columns of a matrix alone, side by side, to be read as numbers."""

    def read(self, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Read all of them as one tensor, without holding a second copy."""

    def storages(
        self, shape: torch.Size, dtype: torch.dtype, device: torch.device
    ) -> Sequence[Storage]:
        """All of them as they are stored, for a layer that computes in `dtype`; empty if they are
        to be read as numbers."""

    def column_storages(
        self, own: Sequence[range], shape: torch.Size, dtype: torch.dtype, device: torch.device
    ) -> tuple[Sequence[Storage], Sequence[range]]:
        """The same for the whole blocks that hold these columns of a matrix of this shape; also
        returns which columns those are."""


def take_parameters(
    module: nn.Module, sources: Mapping[str, Sources], dtype: torch.dtype, device: torch.device
) -> None:
    """Set the module's own parameters and buffers, by name, from `sources`.

    A module may define a method `take` of this form, without `module`, to do it differently.
    """
    own = {name: getattr(module, name) for name in sources}
    state = {name: sources[name].read(own[name].shape, dtype, device) for name in sources}
    module.load_state_dict(state, strict=False, assign=True)
