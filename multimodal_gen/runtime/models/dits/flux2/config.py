"""Config of a FLUX.2 transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multimodal_gen.runtime.models.dits.config import JointConfig
from multimodal_gen.scheduling.parallel.shape import TransformerShape

AXES = 4  # of positions: time, row, column, text position


@dataclass(frozen=True)
class Flux2Config(JointConfig):
    """The fields and defaults of diffusers' Flux2Transformer2DModel."""

    patch_size: int = 1
    in_channels: int = 128
    out_channels: int | None = None
    num_layers: int = 8
    num_single_layers: int = 48
    attention_head_dim: int = 128
    num_attention_heads: int = 48
    joint_attention_dim: int = 15360
    timestep_guidance_channels: int = 256
    mlp_ratio: float = 3.0
    axes_dims_rope: tuple[int, ...] = (32, 32, 32, 32)
    rope_theta: float = 2000.0
    eps: float = 1e-6
    guidance_embeds: bool = True

    title: ClassVar = "FLUX.2"
    smallest: ClassVar = {**JointConfig.smallest, "timestep_guidance_channels": 2}

    def check(self) -> None:
        self.check_positive("mlp_ratio", "rope_theta", "eps")
        self.check_axes("axes_dims_rope", self.attention_head_dim, AXES)

    @property
    def mlp_dim(self) -> int:
        return int(self.inner_dim * self.mlp_ratio)

    @property
    def shape(self) -> TransformerShape:
        return self.shape_of(self.num_layers, self.num_single_layers, mlp_products=3)
