"""What transformers' config.json files have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from multimodal_gen.errors import InvalidCheckpoint


@dataclass(frozen=True)
class TransformerConfig:
    """A subclass has the fields and defaults of the diffusers class, which are data."""

    title: ClassVar[str]
    """What messages call the model."""
    smallest: ClassVar[Mapping[str, int]]
    """The least value of fields that are integers; one that may be null is checked unless it is.
    Names of fields that a class has not count for nothing."""

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
        """Raises InvalidCheckpoint for what the model has not; after the kinds are checked."""

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """Read config.json. Raises InvalidCheckpoint on a value or a field that the model has not.

        What begins with `_` are diffusers' notes to itself.
        """
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in config.items() if not key.startswith("_")}
        unknown = sorted(values.keys() - known)
        if unknown:
            raise InvalidCheckpoint(
                f"transformer/config.json: {cls.title} has no field {unknown[0]!r}"
            )
        lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})

    def invalid(self, name: str, allowed: str) -> InvalidCheckpoint:
        return InvalidCheckpoint(
            f"transformer/config.json: {name}={getattr(self, name)!r} must be {allowed}"
        )

    def check_axes(self, name: str, head_dim: int, count: int = 3) -> None:
        """Raises InvalidCheckpoint unless the rotary embedding's axes share out the head."""
        axes = getattr(self, name)
        even = isinstance(axes, tuple) and all(isinstance(d, int) and d > 0 == d % 2 for d in axes)
        if not even or len(axes) != count or sum(axes) != head_dim:
            raise self.invalid(name, f"{count} even numbers that add up to the head's {head_dim}")

    def check_positive(self, *names: str) -> None:
        """Raises InvalidCheckpoint unless these are numbers above 0."""
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
                raise self.invalid(name, "a number above 0")


@dataclass(frozen=True)
class JointConfig(TransformerConfig):
    """Of transformers in which streams of text and image attend jointly."""

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
    attention_head_dim: int
    num_attention_heads: int

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
