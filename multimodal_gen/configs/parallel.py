"""Distribution of one step's work over the ranks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ParallelConfig:
    """Number of ranks on each axis of the mesh.

    `cfg` groups share the rows of a batch; in each, `ring` times `ulysses` groups share a sequence;
    in each of those, `tensor` ranks share the layers' heads and features.
    """

    cfg: int = 1
    ring: int = 1
    ulysses: int = 1
    tensor: int = 1
