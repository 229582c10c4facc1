"""Config of a Wan transformer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from multimodal_gen.runtime.models.dits.config import TransformerConfig
from multimodal_gen.scheduling.parallel.shape import TransformerShape


@dataclass(frozen=True)
class WanConfig(TransformerConfig):
    """The fields and defaults of diffusers' WanTransformer3DModel."""

    title: ClassVar = "Wan"
    smallest: ClassVar = {
        "num_attention_heads": 1,
        "attention_head_dim": 2,
        "in_channels": 1,
        "out_channels": 1,
        "text_dim": 1,
        "freq_dim": 2,
        "ffn_dim": 1,
        "num_layers": 1,
        "image_dim": 1,
        "added_kv_proj_dim": 1,
        "rope_max_seq_len": 1,
        "pos_embed_seq_len": 1,
    }

    patch_size: tuple[int, int, int] = (1, 2, 2)
    num_attention_heads: int = 40
    attention_head_dim: int = 128
    in_channels: int = 16
    out_channels: int | None = 16
    text_dim: int = 4096
    freq_dim: int = 256
    ffn_dim: int = 13824
    num_layers: int = 40
    cross_attn_norm: bool = True
    qk_norm: str | None = "rms_norm_across_heads"
    eps: float = 1e-6
    image_dim: int | None = None
    added_kv_proj_dim: int | None = None
    rope_max_seq_len: int = 1024
    pos_embed_seq_len: int | None = None

    def check(self) -> None:
        for name in ("attention_head_dim", "freq_dim"):
            if getattr(self, name) % 2:
                raise self.invalid(name, "even")
        patch = self.patch_size
        whole = isinstance(patch, tuple) and all(isinstance(n, int) and n > 0 for n in patch)
        if not whole or len(patch) != 3:
            raise self.invalid("patch_size", "three whole numbers above 0")
        if not isinstance(self.eps, int | float) or not 0 <= self.eps < 1:
            raise self.invalid("eps", "a number from 0 to 1")

    @property
    def inner_dim(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def velocity_channels(self) -> int:
        return self.out_channels or self.in_channels

    @property
    def axes_dims_rope(self) -> tuple[int, int, int]:
        """Dimensions of each head that rotate with the frame, the row and the column."""
        side = 2 * (self.attention_head_dim // 6)
        return self.attention_head_dim - 2 * side, side, side

    @property
    def block_count(self) -> int:
        return self.num_layers

    @property
    def shape(self) -> TransformerShape:
        """Attention to the video, attention to the text, and the MLP, each with a sum; norms over
        all heads of queries with keys, and of queries and keys of the text."""
        dim = self.inner_dim
        block = dim * (6 * dim + 2 * self.ffn_dim)
        return TransformerShape(
            width=dim,
            heads=self.num_attention_heads,
            channels=self.velocity_channels * math.prod(self.patch_size),
            attentions=self.block_count,
            sums=3 * self.block_count,
            reductions=6 * self.block_count,
            norms=3 * self.block_count,
            token_weights=self.block_count * block,
            all_weights=self.block_count * (block + 2 * dim**2),  # keys and values of the text
        )


@dataclass(frozen=True)
class WanVaceConfig(WanConfig):
    """The fields and defaults of diffusers' WanVACETransformer3DModel."""

    title: ClassVar = "Wan VACE"
    smallest: ClassVar = {**WanConfig.smallest, "vace_in_channels": 1}

    vace_layers: tuple[int, ...] = (0, 5, 10, 15, 20, 25, 30, 35)
    vace_in_channels: int = 96

    def check(self) -> None:
        super().check()
        layers, known = self.vace_layers, range(self.num_layers)
        whole = isinstance(layers, tuple) and all(type(n) is int and n in known for n in layers)
        if not whole or 0 not in layers or len({*layers}) != len(layers):
            raise self.invalid("vace_layers", f"different layers of {self.num_layers}, 0 with them")

    @property
    def block_order(self) -> tuple[int | None, ...]:
        """Numbers of the layers as they run, each control block (None) before its layer."""
        pairs = (
            (None, layer) if layer in self.vace_layers else (layer,)
            for layer in range(self.num_layers)
        )
        return tuple(number for pair in pairs for number in pair)

    @property
    def block_count(self) -> int:
        return len(self.block_order)
