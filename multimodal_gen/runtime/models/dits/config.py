"""Common parts of transformers' config.json files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.scheduling.parallel.shape import TransformerShape


@dataclass(frozen=True)
class TransformerConfig:
    """A subclass has the fields and defaults of the diffusers class."""

    title: ClassVar[str]
    """Name of the model in messages."""
    smallest: ClassVar[Mapping[str, int]]
    """Minimum of integer fields; null is allowed where the field may be null. Entries for fields
    that the class lacks are ignored."""

    def __post_init__(self) -> None:
        kinds = {field.name: str(field.type) for field in fields(self)}
        for name, at_least in self.smallest.items():
            value = getattr(self, name, None)
            if name not in kinds or (value is None and "None" in kinds[name]):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
                raise self.invalid(name, f"an integer of at least {at_least}")
        for field in fields(self):
            if field.type == "bool" and not isinstance(getattr(self, field.name), bool):
                raise self.invalid(field.name, "true or false")
        self.check()

    def check(self) -> None:
        """Raise InvalidCheckpoint for unsupported values; called after the types are checked."""

    @property
    @abstractmethod
    def shape(self) -> TransformerShape:
        """Layers that ranks can share."""

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """Read config.json. Raises InvalidCheckpoint for an unsupported value or field.

        Keys that start with `_` are diffusers' own metadata. A field that is unknown and off (false
        or null) is one that a later version of diffusers added.
        """
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in config.items() if not key.startswith("_")}
        off = {key for key, value in values.items() if value is None or value is False}
        unknown = sorted(values.keys() - known - off)
        if unknown:
            raise InvalidCheckpoint(
                f"transformer/config.json: {cls.title} has no field {unknown[0]!r}"
            )
        lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return cls(**{key: lists.get(key, values[key]) for key in values.keys() & known})

    def invalid(self, name: str, allowed: str) -> InvalidCheckpoint:
        return InvalidCheckpoint(
            f"transformer/config.json: {name}={getattr(self, name)!r} must be {allowed}"
        )

    def check_axes(self, name: str, head_dim: int, count: int = 3) -> None:
        """Raise InvalidCheckpoint unless the axes of the rotary embedding add up to the head's
        dimension."""
        axes = getattr(self, name)
        even = isinstance(axes, tuple) and all(isinstance(d, int) and d > 0 == d % 2 for d in axes)
        if not even or len(axes) != count or sum(axes) != head_dim:
            raise self.invalid(name, f"{count} even numbers that add up to the head's {head_dim}")

    def check_positive(self, *names: str) -> None:
        """Raise InvalidCheckpoint unless these are numbers above 0."""
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
                raise self.invalid(name, "a number above 0")


@dataclass(frozen=True)
class JointConfig(TransformerConfig):
    """Base for transformers with joint attention of text and image streams."""

    smallest: ClassVar[Mapping[str, int]] = {
        "patch_size": 1,
        "in_channels": 1,
        "out_channels": 1,
        "num_layers": 0,
        "num_single_layers": 0,
        "attention_head_dim": 2,
        "num_attention_heads": 1,
        "joint_attention_dim": 1,
    }

    patch_size: int
    in_channels: int
    out_channels: int | None
    num_layers: int
    attention_head_dim: int
    num_attention_heads: int

    @property
    def inner_dim(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def mlp_dim(self) -> int:
        return 4 * self.inner_dim

    @property
    def shape(self) -> TransformerShape:
        return self.shape_of(self.num_layers, mlp_products=2)

    def shape_of(self, doubles: int, singles: int = 0, *, mlp_products: int) -> TransformerShape:
        """`doubles` blocks with a sum after attention and one after the MLP, and `singles` with one
        for both; each token passes one stream. `mlp_products` are the MLP's, of width times
        `mlp_dim`."""
        block = 4 * self.inner_dim**2 + mlp_products * self.inner_dim * self.mlp_dim
        return TransformerShape(
            width=self.inner_dim,
            heads=self.num_attention_heads,
            channels=self.token_channels,
            attentions=doubles + singles,
            sums=2 * doubles + singles,
            reductions=4 * doubles + singles,
            token_weights=(doubles + singles) * block,
            all_weights=(2 * doubles + singles) * block,
        )

    @property
    def token_channels(self) -> int:
        """Channels per output token."""
        return self.patch_size**2 * (self.out_channels or self.in_channels)
