"""Config of a MiniMax-H3 transformer."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from multimodal_gen.runtime.models.dits.config import TransformerConfig
from multimodal_gen.scheduling.parallel.shape import TransformerShape


@dataclass(frozen=True)
class MiniMaxH3Config(TransformerConfig):
    """The fields and defaults of diffusers' MiniMaxH3Transformer3DModel."""

    title: ClassVar = "MiniMax-H3"
    smallest: ClassVar = {
        **dict.fromkeys(("num_attention_heads", "hidden_size", "num_layers", "ffn_dim"), 1),
        **dict.fromkeys(("in_channels", "audio_in_channels", "text_dim", "rope_freq_dim"), 1),
        **dict.fromkeys(("time_embed_hidden_dim", "time_embed_dim"), 1),
        **dict.fromkeys(("attention_head_dim", "freq_dim"), 2),
        "num_refiner_layers": 0,
    }

    num_attention_heads: int = 56
    attention_head_dim: int = 128
    hidden_size: int = 5376
    num_layers: int = 50
    num_refiner_layers: int = 2
    ffn_dim: int = 14336
    in_channels: int = 24
    audio_in_channels: int = 32
    patch_size: tuple[int, int, int] = (1, 2, 2)
    text_dim: int = 5120
    freq_dim: int = 256
    time_embed_hidden_dim: int = 5376
    time_embed_dim: int = 2688
    rope_freq_dim: int = 16
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    qk_norm_eps: float = 1e-5
    final_norm_eps: float = 1e-5

    def check(self) -> None:
        self.check_positive("rope_theta", "norm_eps", "qk_norm_eps", "final_norm_eps")
        first, *sides = self.patch_size if isinstance(self.patch_size, tuple) else (0,)
        if first != 1 or len(sides) != 2 or not all(type(n) is int and n > 0 for n in sides):
            raise self.invalid("patch_size", "1 and two whole numbers above 0")
        if 6 * self.rope_freq_dim > self.attention_head_dim:
            most = self.attention_head_dim // 6
            raise self.invalid("rope_freq_dim", f"at most {most}: a sixth of the head's dimension")
        if self.freq_dim % 2:
            raise self.invalid("freq_dim", "even")

    @property
    def block(self) -> tuple[tuple[int, ...], tuple[float, float]]:
        """Sizes of a block, whose heads together are wider than a token, and its epsilons."""
        heads = (self.num_attention_heads, self.attention_head_dim)
        return (self.hidden_size, *heads, self.ffn_dim), (self.norm_eps, self.qk_norm_eps)

    @property
    def token_channels(self) -> int:
        """Numbers of a token of the video."""
        return self.in_channels * prod(self.patch_size)

    @property
    def shape(self) -> TransformerShape:
        """Blocks have two sums each; the refiner's are for a batch."""
        inner = self.num_attention_heads * self.attention_head_dim
        block = self.hidden_size * (4 * inner + 3 * self.ffn_dim)
        blocks = self.num_layers + self.num_refiner_layers
        return TransformerShape(
            width=self.hidden_size,
            heads=self.num_attention_heads,
            channels=self.token_channels,
            attentions=self.num_layers,
            sums=2 * self.num_layers,
            reductions=2 * self.num_layers,
            token_weights=self.num_layers * block,
            all_weights=blocks * block,
        )
