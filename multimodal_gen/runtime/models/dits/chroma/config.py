"""Config of a Chroma transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multimodal_gen.runtime.models.dits.config import JointConfig
from multimodal_gen.runtime.models.dits.flux.blocks import FluxDoubleBlock, FluxSingleBlock
from multimodal_gen.runtime.models.dits.flux.config import BackboneConfig


@dataclass(frozen=True)
class ChromaConfig(BackboneConfig):
    """The fields and defaults of diffusers' ChromaTransformer2DModel."""

    title: ClassVar = "Chroma"
    smallest: ClassVar = {
        **JointConfig.smallest,
        "approximator_num_channels": 8,
        "approximator_hidden_dim": 1,
        "approximator_layers": 0,
    }

    approximator_num_channels: int = 64
    approximator_hidden_dim: int = 5120
    approximator_layers: int = 5

    def check(self) -> None:
        super().check()
        if self.approximator_num_channels % 8:
            raise self.invalid("approximator_num_channels", "a multiple of 8")

    @property
    def vectors(self) -> int:
        """Modulation vectors of all blocks and of the last norm."""
        doubles = FluxDoubleBlock.vectors * self.num_layers
        return FluxSingleBlock.vectors * self.num_single_layers + doubles + 2
