"""Config of a Qwen-Image transformer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from multimodal_gen.runtime.models.dits.config import JointConfig
from multimodal_gen.scheduling.parallel.shape import TransformerShape

_NOT_KNOWN = ("guidance_embeds", "use_additional_t_cond", "use_layer3d_rope")


@dataclass(frozen=True)
class QwenImageConfig(JointConfig):
    """The fields and defaults of diffusers' QwenImageTransformer2DModel."""

    title: ClassVar = "Qwen-Image"

    patch_size: int = 2
    in_channels: int = 64
    out_channels: int | None = 16
    num_layers: int = 60
    attention_head_dim: int = 128
    num_attention_heads: int = 24
    joint_attention_dim: int = 3584
    guidance_embeds: bool = False
    """Must be false: the reference has no weights for it, and fails."""
    axes_dims_rope: tuple[int, int, int] = (16, 56, 56)
    zero_cond_t: bool = False
    """Modulate tokens of an input image as at timestep 0 (Qwen-Image-Edit-2511)."""
    use_additional_t_cond: bool = False
    """Must be false, like the next field: both belong to Qwen-Image-Layered."""
    use_layer3d_rope: bool = False

    def check(self) -> None:
        self.check_axes("axes_dims_rope", self.attention_head_dim)
        for name in _NOT_KNOWN:
            if getattr(self, name):
                raise self.invalid(name, "false: such a Qwen-Image model is not supported")

    @property
    def shape(self) -> TransformerShape:
        """Each block has six vectors for the image and six for the text."""
        return replace(super().shape, modulation=12 * self.num_layers * self.inner_dim)
