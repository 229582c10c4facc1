"""Configs of a FLUX transformer and of those made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multimodal_gen.runtime.models.dits.config import JointConfig
from multimodal_gen.scheduling.parallel.shape import TransformerShape


@dataclass(frozen=True)
class BackboneConfig(JointConfig):
    """Fields of all transformers with FLUX's blocks, with their defaults."""

    patch_size: int = 1
    in_channels: int = 64
    out_channels: int | None = None
    num_layers: int = 19
    num_single_layers: int = 38
    attention_head_dim: int = 128
    num_attention_heads: int = 24
    joint_attention_dim: int = 4096
    axes_dims_rope: tuple[int, int, int] = (16, 56, 56)

    def check(self) -> None:
        self.check_axes("axes_dims_rope", self.attention_head_dim)

    @property
    def shape(self) -> TransformerShape:
        return self.shape_of(self.num_layers, self.num_single_layers, mlp_products=2)


@dataclass(frozen=True)
class FluxConfig(BackboneConfig):
    """The fields and defaults of diffusers' FluxTransformer2DModel."""

    title: ClassVar = "FLUX"
    smallest: ClassVar = {**JointConfig.smallest, "pooled_projection_dim": 1}

    pooled_projection_dim: int = 768
    guidance_embeds: bool = False
