"""Config of a Stable Diffusion 3 transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multimodal_gen.runtime.models.dits.config import JointConfig

_QK_NORMS = (None, "rms_norm")


@dataclass(frozen=True)
class SD3Config(JointConfig):
    """The fields and defaults of diffusers' SD3Transformer2DModel."""

    title: ClassVar = "Stable Diffusion 3"
    smallest: ClassVar = {
        **JointConfig.smallest,
        "sample_size": 1,
        "num_layers": 1,
        "attention_head_dim": 1,
        "pooled_projection_dim": 1,
        "pos_embed_max_size": 1,
    }

    sample_size: int = 128
    patch_size: int = 2
    in_channels: int = 16
    num_layers: int = 18
    attention_head_dim: int = 64
    num_attention_heads: int = 18
    joint_attention_dim: int = 4096
    caption_projection_dim: int = 1152
    pooled_projection_dim: int = 2048
    out_channels: int | None = 16
    pos_embed_max_size: int = 96
    dual_attention_layers: tuple[int, ...] = ()
    qk_norm: str | None = None

    @property
    def has_text(self) -> bool:
        """True if the text is a stream of its own."""
        return True

    def ends_text(self, block: int) -> bool:
        """True if the text is not used after this block."""
        return block == self.num_layers - 1

    def check(self) -> None:
        if self.has_text and self.caption_projection_dim != self.inner_dim:
            allowed = f"num_attention_heads * attention_head_dim = {self.inner_dim}"
            raise self.invalid("caption_projection_dim", allowed)
        if self.out_channels not in (None, self.in_channels):
            raise self.invalid("out_channels", f"in_channels = {self.in_channels}")
        dual = self.dual_attention_layers
        if not isinstance(dual, tuple) or not all(isinstance(layer, int) for layer in dual):
            raise self.invalid("dual_attention_layers", "a list of layers")
        if self.qk_norm not in _QK_NORMS:
            raise self.invalid("qk_norm", "null or 'rms_norm'")
