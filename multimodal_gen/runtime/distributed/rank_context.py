"""Device, dtype and mesh position of a rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from multimodal_gen.runtime.distributed.mesh import Mesh


@dataclass(frozen=True)
class RankContext:
    """Properties of a rank that are shared by all components of its pipeline."""

    device: torch.device
    dtype: torch.dtype
    mesh: Mesh
    attention_backend: str
