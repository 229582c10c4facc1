"""Base class of the groups that make up ServerArgs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

import msgspec

from multimodal_gen.errors import InvalidRequest


@dataclass(frozen=True, kw_only=True)
class ArgumentGroup:
    """Checks the types of its fields. A group's own `__post_init__` calls this one, then checks
    values, so that groups can be combined by inheritance."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            self._check_type(name, kind)

    @classmethod
    def of(cls, *groups: ArgumentGroup) -> Self:
        """Take the fields of this class from `groups`; any others are left out."""
        given = {name: value for group in groups for name, value in vars(group).items()}
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in given.items() if name in known})

    def require(self, allowed: str, check: Callable[[Any], bool], *names: str) -> None:
        """Raise InvalidRequest for the first of these fields that is set and fails `check`."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not check(value):
                raise InvalidRequest(name, value, allowed)

    def require_at_least_1(self, *names: str) -> None:
        self.require("must be at least 1", lambda value: value >= 1, *names)

    def require_seconds(self, *names: str) -> None:
        self.require("must be more than 0 seconds", lambda value: 0 < value < math.inf, *names)

    def require_from_0(self, *names: str) -> None:
        self.require("must be a number of 0 or more", lambda value: 0 <= value < math.inf, *names)

    def _check_type(self, name: str, kind: Any) -> None:
        value = getattr(self, name)
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
            object.__setattr__(self, name, value)
        if isinstance(value, str) and not _is_unicode(value):
            raise InvalidRequest(name, "…", "must be valid Unicode")
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            choices = ", ".join(_choices(kind))
            allowed = f"must be one of {choices}" if choices else str(error)
            raise InvalidRequest(name, value, allowed) from error


def _choices(kind: Any) -> tuple[str, ...]:
    """Texts that a Literal allows, also beside None."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return tuple(choice for each in get_args(kind) for choice in _choices(each))


def _is_unicode(text: str) -> bool:
    """Returns False for bytes of a command line that are not in its encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
