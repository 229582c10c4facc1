"""Where a rank works."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from multimodal_gen.runtime.distributed.mesh import Mesh


@dataclass(frozen=True)
class RankContext:
    """Where a pipeline runs: what is the same for all components of one rank."""

    device: torch.device
    dtype: torch.dtype
    mesh: Mesh
    attention_backend: str
