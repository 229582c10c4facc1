"""Device, dtype and mesh position of a rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.scheduling.working_memory import ENCODERS

ENCODING = ("tokenizer", "processor", "image_processor", *ENCODERS)
"""Kinds of components that only the rank that encodes needs."""


@dataclass(frozen=True)
class RankContext:
    """Properties of a rank that are shared by all components of its pipeline."""

    device: torch.device
    dtype: torch.dtype
    mesh: Mesh
    attention_backend: str

    @property
    def encodes(self) -> bool:
        """True on the rank that encodes prompts and pictures for all."""
        return self.mesh.rank == 0

    def place(self, component: str) -> torch.device:
        """Device of a component: meta if this rank does not use it."""
        idle = component.startswith(ENCODING) and not self.encodes
        return torch.device("meta") if idle else self.device
