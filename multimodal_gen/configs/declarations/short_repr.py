"""Short texts that stand for objects with many fields."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def short_repr(instance: DataclassInstance, secret: Container[str] = ()) -> str:
    """Return `Name(field=value, …)` without the fields of a dataclass that have their defaults.
    The values of `secret` fields are not shown."""
    changed = [each for each in fields(instance) if getattr(instance, each.name) != _default(each)]
    shown = (
        f"{each.name}={'…' if each.name in secret else repr(getattr(instance, each.name))}"
        for each in changed
    )
    return f"{type(instance).__name__}({', '.join(shown)})"


def _default(field: Field[Any]) -> object:
    made = field.default_factory
    return field.default if made is MISSING else made()
