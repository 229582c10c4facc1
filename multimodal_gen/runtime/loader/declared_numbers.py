"""Checks numbers in a config against what a library's class declares for them.

The libraries take anything, and fail where the number is used, often at the first request.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType
from typing import Any, NamedTuple

from multimodal_gen.errors import InvalidCheckpoint

_ELSEWHERE = ("sample_size",)
"""Declared as a number, but lists of two are common."""
_NOT_NOUGHT = ("heads", "groups", "patch_size", "patch_size_t")


class _Declared(NamedTuple):
    kinds: frozenset[Any]
    """Types that the annotation allows."""
    default: object


def check_numbers(kind: Any, settings: Mapping[str, object], where: str) -> None:
    """Raise InvalidCheckpoint for a setting that class `kind` declares as a number, or a list of
    numbers, and that is none."""
    declared = dict(_declarations(kind))
    for key, value in settings.items():
        if key in declared and key not in _ELSEWHERE:
            own = declared[key].default
            if type(value) is type(own) and value == own:  # even one that its name belies
                continue
            allowed = _allowed(key, declared[key])
            if allowed is not None and not _holds(key, value, declared[key]):
                raise InvalidCheckpoint(f"{where}: {key}={value!r:.60} must be {allowed}")


def _declarations(kind: Any) -> Iterator[tuple[str, _Declared]]:
    if is_dataclass(kind):
        for field in fields(kind):
            default = None if field.default is MISSING else field.default
            yield field.name, _Declared(_kinds(field.type), default)
        return
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        yield name, _Declared(_kinds(parameter.annotation), parameter.default)


def _kinds(annotation: Any) -> frozenset[Any]:
    """The parts of a union; those of a list of numbers are `list` and the numbers' type."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (list, tuple) and parts and parts[0] in (int, float):
        return frozenset((list, parts[0]))
    return frozenset(parts or (annotation,))


def _allowed(key: str, declared: _Declared) -> str | None:
    """Describe the values that a setting may have; None if they are not numbers."""
    kinds = declared.kinds - {NoneType}
    if isinstance(declared.default, bool):  # declared wrongly, as in CogVideoX's VAE
        return None
    if list in kinds and len(kinds) == 2:
        return "a list of numbers"
    if float in kinds and kinds <= {int, float}:
        return "a number"
    if kinds == {int}:
        whole = "whole " if declared.kinds == kinds else ""
        return f"a {whole}number of at least {_least(key)}"
    return None


def _holds(key: str, value: object, declared: _Declared) -> bool:
    if value is None:
        return NoneType in declared.kinds or declared.default is None
    if list in declared.kinds:
        return isinstance(value, list) and all(map(_is_number, value))
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    if declared.kinds == {int} and not isinstance(value, int):
        return False
    return float in declared.kinds or value >= _least(key)


def _least(key: str) -> int:
    return int(key.endswith(_NOT_NOUGHT))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
