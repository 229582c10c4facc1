"""What a FLUX transformer's config.json says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from multimodal_gen.errors import InvalidCheckpoint


@dataclass(frozen=True)
class FluxConfig:
    """The fields and defaults of diffusers' FluxTransformer2DModel."""

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

    def __post_init__(self) -> None:
        for name, at_least in _SMALLEST.items():
            value = getattr(self, name)
            if name == "out_channels" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
                raise _invalid(name, value, f"an integer of at least {at_least}")
        if not isinstance(self.guidance_embeds, bool):
            raise _invalid("guidance_embeds", self.guidance_embeds, "true or false")
        axes = self.axes_dims_rope
        even = isinstance(axes, tuple) and all(isinstance(d, int) and d > 0 == d % 2 for d in axes)
        if not even or len(axes) != 3 or sum(axes) != self.attention_head_dim:
            allowed = f"three even numbers that add up to the head's {self.attention_head_dim}"
            raise _invalid("axes_dims_rope", axes, allowed)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> FluxConfig:
        """Read config.json. Raises InvalidCheckpoint on a value or a field that FLUX has not."""
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in config.items() if not key.startswith("_")}
        unknown = sorted(values.keys() - known)
        if unknown:
            raise InvalidCheckpoint(f"transformer/config.json: FLUX has no field {unknown[0]!r}")
        if isinstance(values.get("axes_dims_rope"), list):
            values["axes_dims_rope"] = tuple(values["axes_dims_rope"])
        return cls(**values)

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


_SMALLEST = {
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


def _invalid(name: str, value: object, allowed: str) -> InvalidCheckpoint:
    return InvalidCheckpoint(f"transformer/config.json: {name}={value!r} must be {allowed}")
