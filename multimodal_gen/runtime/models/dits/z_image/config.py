"""Config of a Z-Image transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from multimodal_gen.runtime.models.dits.config import TransformerConfig
from multimodal_gen.scheduling.parallel.shape import TransformerShape

PATCH = 2
_MODULATION_DIM = 256


@dataclass(frozen=True)
class ZImageConfig(TransformerConfig):
    """The fields and defaults of diffusers' ZImageTransformer2DModel."""

    all_patch_size: tuple[int, ...] = (PATCH,)
    all_f_patch_size: tuple[int, ...] = (1,)
    in_channels: int = 16
    dim: int = 3840
    n_layers: int = 30
    n_refiner_layers: int = 2
    n_heads: int = 30
    n_kv_heads: int = 30
    """Without effect, as in the reference."""
    norm_eps: float = 1e-5
    qk_norm: bool = True
    cap_feat_dim: int = 2560
    siglip_feat_dim: int | None = None
    rope_theta: float = 256.0
    t_scale: float = 1000.0
    axes_dims: tuple[int, ...] = (32, 48, 48)
    axes_lens: tuple[int, ...] = (1024, 512, 512)

    title: ClassVar = "Z-Image"
    smallest: ClassVar = {
        "in_channels": 1,
        "dim": 2,
        "n_layers": 1,
        "n_refiner_layers": 0,
        "n_heads": 1,
        "cap_feat_dim": 1,
    }

    def check(self) -> None:
        for name, only in (("all_patch_size", (PATCH,)), ("all_f_patch_size", (1,))):
            if getattr(self, name) != only:
                raise self.invalid(name, f"{[*only]}")
        if self.siglip_feat_dim is not None:
            raise self.invalid("siglip_feat_dim", "null (Z-Image Omni is not supported)")
        self.check_positive("norm_eps", "rope_theta", "t_scale")
        if self.dim % self.n_heads:
            raise self.invalid("dim", f"a multiple of n_heads={self.n_heads}")
        self.check_axes("axes_dims", self.head_dim)

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    @property
    def mlp_dim(self) -> int:
        return int(self.dim / 3 * 8)

    @property
    def modulation_dim(self) -> int:
        """Width of the embedded timestep."""
        return min(self.dim, _MODULATION_DIM)

    @property
    def token_channels(self) -> int:
        return PATCH**2 * self.in_channels

    @property
    def shape(self) -> TransformerShape:
        """The image passes its refiners, then the layers together with the text, whose own are for
        a batch and not for an evaluation."""
        blocks = self.n_layers + self.n_refiner_layers
        weights = self.dim * (4 * self.dim + 3 * self.mlp_dim)
        return TransformerShape(
            width=self.dim,
            heads=self.n_heads,
            channels=self.token_channels,
            attentions=blocks,
            sums=2 * blocks,
            reductions=2 * blocks,
            token_weights=blocks * weights,
            all_weights=(blocks + self.n_refiner_layers) * weights,
        )
