"""What a FLUX transformer's config.json says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multimodal_gen.runtime.models.dits.config import TransformerConfig


@dataclass(frozen=True)
class FluxConfig(TransformerConfig):
    """The fields and defaults of diffusers' FluxTransformer2DModel."""

    title: ClassVar = "FLUX"
    smallest: ClassVar = {
        "patch_size": 1,
        "in_channels": 1,
        "out_channels": 1,
        "num_layers": 0,
        "num_single_layers": 0,
        "attention_head_dim": 2,
        "num_attention_heads": 1,
        "joint_attention_dim": 1,
        "pooled_projection_dim": 1,
    }

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
    def inner_dim(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def mlp_dim(self) -> int:
        return 4 * self.inner_dim

    @property
    def token_channels(self) -> int:
        """Channels of a token of the output."""
        return self.patch_size**2 * (self.out_channels or self.in_channels)
