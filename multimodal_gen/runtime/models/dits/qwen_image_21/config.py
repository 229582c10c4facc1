"""Config of a Qwen-Image 2.1 transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multimodal_gen.runtime.models.dits.config import JointConfig
from multimodal_gen.scheduling.parallel.shape import TransformerShape


@dataclass(frozen=True)
class QwenImage21Config(JointConfig):
    """The fields and defaults of diffusers' QwenImage21Transformer2DModel."""

    patch_size: int = 1
    in_channels: int = 64
    out_channels: int | None = 64
    num_layers: int = 32
    attention_head_dim: int = 128
    num_attention_heads: int = 32
    context_in_dim: int = 4096
    mlp_ratio: int = 3
    axes_dims_rope: tuple[int, ...] = (16, 56, 56)
    eps: float = 1e-6
    causal_condition: bool = True

    title: ClassVar = "Qwen-Image 2.1"
    smallest: ClassVar = {**JointConfig.smallest, "context_in_dim": 1, "mlp_ratio": 1}

    def check(self) -> None:
        self.check_axes("axes_dims_rope", self.attention_head_dim)
        self.check_positive("eps")
        if self.patch_size != 1:
            raise self.invalid("patch_size", "1")
        if not self.causal_condition:
            raise self.invalid("causal_condition", "true: text and input images don't depend on t")

    @property
    def mlp_dim(self) -> int:
        return self.mlp_ratio * self.inner_dim

    @property
    def shape(self) -> TransformerShape:
        """The one stream is that of single blocks, with two sums each."""
        block = 4 * self.inner_dim**2 + 3 * self.inner_dim * self.mlp_dim
        return TransformerShape(
            width=self.inner_dim,
            heads=self.num_attention_heads,
            channels=self.token_channels,
            attentions=self.num_layers,
            sums=2 * self.num_layers,
            reductions=2 * self.num_layers,
            token_weights=self.num_layers * block,
            all_weights=self.num_layers * block,
        )
