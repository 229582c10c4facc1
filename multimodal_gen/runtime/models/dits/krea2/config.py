"""Config of a Krea 2 transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multimodal_gen.runtime.models.dits.config import TransformerConfig
from multimodal_gen.scheduling.parallel.shape import TransformerShape


@dataclass(frozen=True)
class Krea2Config(TransformerConfig):
    """The fields and defaults of diffusers' Krea2Transformer2DModel."""

    in_channels: int = 64
    num_layers: int = 28
    attention_head_dim: int = 128
    num_attention_heads: int = 48
    num_key_value_heads: int = 12
    intermediate_size: int = 16384
    timestep_embed_dim: int = 256
    text_hidden_dim: int = 2560
    num_text_layers: int = 12
    text_num_attention_heads: int = 20
    text_num_key_value_heads: int = 20
    text_intermediate_size: int = 6912
    num_layerwise_text_blocks: int = 2
    num_refiner_text_blocks: int = 2
    axes_dims_rope: tuple[int, ...] = (32, 48, 48)
    rope_theta: float = 1000.0
    norm_eps: float = 1e-5

    title: ClassVar = "Krea 2"
    smallest: ClassVar = {
        **dict.fromkeys(("in_channels", "num_layers", "num_attention_heads", "num_text_layers"), 1),
        **dict.fromkeys(("num_key_value_heads", "intermediate_size", "text_hidden_dim"), 1),
        **dict.fromkeys(("text_num_attention_heads", "text_num_key_value_heads"), 1),
        **dict.fromkeys(("attention_head_dim", "timestep_embed_dim"), 2),
        **dict.fromkeys(("num_layerwise_text_blocks", "num_refiner_text_blocks"), 0),
        "text_intermediate_size": 1,
    }

    def check(self) -> None:
        self.check_axes("axes_dims_rope", self.attention_head_dim)
        self.check_positive("rope_theta", "norm_eps")
        heads, text = "num_attention_heads", "text_num_attention_heads"
        keys = ((each, each.replace("attention", "key_value")) for each in (heads, text))
        for name, of in (*keys, ("text_hidden_dim", text)):
            if getattr(self, name) % getattr(self, of):
                raise self.invalid(name, f"a multiple of {of}={getattr(self, of)}")

    @property
    def inner_dim(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def shape(self) -> TransformerShape:
        """Ranks deal out queries together with the keys and values that they attend to."""
        blocks, of_text = self.num_layers, self.num_refiner_text_blocks
        gate_and_queries = 3 * self.inner_dim**2  # and the layer after attention
        keys_values = 2 * self.inner_dim * self.num_key_value_heads * self.attention_head_dim
        block = gate_and_queries + keys_values + 3 * self.inner_dim * self.intermediate_size
        fused = of_text + self.num_layerwise_text_blocks
        text = self.text_hidden_dim * (5 * self.text_hidden_dim + 3 * self.text_intermediate_size)
        return TransformerShape(
            width=self.inner_dim,
            heads=self.num_key_value_heads,
            channels=self.in_channels,
            attentions=blocks,
            sums=2 * blocks,
            reductions=2 * blocks,
            token_weights=blocks * block,
            all_weights=blocks * block + fused * text,
        )
