"""Config of a FLUX transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multimodal_gen.runtime.models.dits.config import JointConfig
from multimodal_gen.scheduling.parallel.shape import TransformerShape


@dataclass(frozen=True)
class FluxConfig(JointConfig):
    """The fields and defaults of diffusers' FluxTransformer2DModel."""

    title: ClassVar = "FLUX"
    smallest: ClassVar = {**JointConfig.smallest, "pooled_projection_dim": 1}

    patch_size: int = 1
    in_channels: int = 64
    out_channels: int | None = None
    num_layers: int = 19
    num_single_layers: int = 38
    attention_head_dim: int = 128
    num_attention_heads: int = 24
    joint_attention_dim: int = 4096
    pooled_projection_dim: int = 768
    guidance_embeds: bool = False
    axes_dims_rope: tuple[int, int, int] = (16, 56, 56)

    def check(self) -> None:
        self.check_axes("axes_dims_rope", self.attention_head_dim)

    @property
    def shape(self) -> TransformerShape:
        return self.shape_of(self.num_layers, self.num_single_layers, mlp_products=2)
