"""Sampling parameters as data, and the checks that follow from their declarations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from operator import attrgetter
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from multimodal_gen.configs.parameter_spec import Bound, ParameterSpec
from multimodal_gen.errors import InvalidRequest

NUMBERS: Any = tuple[float, ...]
TEXTS: Any = tuple[str, ...]
"""A text alone is taken as one."""
_TYPE_NAMES: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    NUMBERS: "a list of numbers",
    TEXTS: "text, or a list of texts",
}
_CLASSES: Mapping[Any, Any] = {int: int, float: (int, float), str: str, bool: bool}


@dataclass(frozen=True)
class SamplingParameter:
    """One field of `SamplingParams`, with its declaration."""

    name: str
    annotation: Any
    """Its type; `X | None` if None means the default."""
    default: Any
    spec: ParameterSpec

    @property
    def is_optional(self) -> bool:
        return type(None) in get_args(self.annotation)

    @property
    def kind(self) -> Any:
        """Type without None."""
        return get_args(self.annotation)[0] if self.is_optional else self.annotation

    @property
    def choices(self) -> tuple[str, ...]:
        """Allowed values of a Literal parameter."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def summary(self) -> str:
        """Help, unit and range in one sentence, without bounds that depend on the model."""
        low, high = self.constant_bounds
        known = low is not None and high is not None
        facts = [self.spec.unit, self._range(low, high) if known else ""]
        shown = ", ".join(fact for fact in facts if fact)
        return f"{self.spec.help} ({shown})." if shown else f"{self.spec.help}."

    @property
    def constant_bounds(self) -> tuple[float | None, float | None]:
        """Lowest and highest value; None for a bound that depends on the model."""
        low, high = self.spec.lowest, self.spec.highest
        return None if isinstance(low, str) else low, None if isinstance(high, str) else high

    def check_type(self, value: object) -> None:
        """Check the type of a value. Raises InvalidRequest."""
        if value is None and self.is_optional:
            return
        if self.choices:
            fits = value in self.choices
        elif self.kind in _CLASSES:
            fits = _is(value, self.kind)
        elif self.kind == NUMBERS:
            fits = _are(value, float)
        elif self.kind == TEXTS:
            fits = isinstance(value, str) or _are(value, str)
        else:
            return  # SamplingParams converts it
        if not fits:
            words = _TYPE_NAMES.get(self.kind) or alternatives(self.choices)
            raise InvalidRequest(self.name, value, f"must be {words}")

    def check_value(self, value: Any, model: object) -> None:
        """Check a value of the right type against a `ModelInfo`. Raises InvalidRequest."""
        if value is None and not self.spec.required:
            return
        for each in value if self.kind == NUMBERS else (value,):
            self._check_range(each, model)
        if self.spec.multiple_of:
            self._check_multiple(value, model)
        if self.spec.one_of and value not in (allowed := attrgetter(self.spec.one_of)(model)):
            known = ", ".join(allowed) or "none"
            raise InvalidRequest(self.name, value, f"this model allows {known}")

    def _check_range(self, value: Any, model: object) -> None:
        low, high = _bound(self.spec.lowest, model), _bound(self.spec.highest, model)
        if low is None:
            return
        if high is None:  # a limit that the model does not set allows only the lowest value
            high = low
        above = value is not None and (low < value if self.spec.exclusive else low <= value)
        if not (above and value <= high):
            raise InvalidRequest(self.name, value, f"must be {self._range(low, high)}")

    def _range(self, low: float | None, high: float | None) -> str:
        return f"more than {low} and at most {high}" if self.spec.exclusive else f"{low} to {high}"

    def _check_multiple(self, value: int, model: object) -> None:
        multiple = attrgetter(self.spec.multiple_of)(model)
        remainder = attrgetter(self.spec.remainder)(model) if self.spec.remainder else 0
        if (value - remainder) % multiple == 0:
            return
        lower = (value - remainder) // multiple * multiple + remainder
        more = f"{remainder} more than " if remainder else ""
        nearest = f"{lower} or {lower + multiple} are the nearest"
        allowed = f"must be {more}a multiple of {multiple}; {nearest}"
        raise InvalidRequest(self.name, value, allowed)


def _is(value: object, kind: type) -> bool:
    is_bool = isinstance(value, bool)  # which Python takes for an int
    return isinstance(value, _CLASSES[kind]) and is_bool == (kind is bool)


def _are(value: object, kind: type) -> bool:
    return isinstance(value, list | tuple) and all(_is(each, kind) for each in value)


def parameters_of(declaration: type) -> Mapping[str, SamplingParameter]:
    """Return the parameters of a dataclass with fields of type Annotated[…, ParameterSpec(…)]."""
    hints = get_type_hints(declaration, include_extras=True)
    found = {field.name: _parameter(field, hints[field.name]) for field in fields(declaration)}
    return MappingProxyType(found)


def alternatives(words: tuple[str, ...]) -> str:
    """Join words as in "low, normal or high"."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _parameter(field: Field[Any], hint: Any) -> SamplingParameter:
    assert get_origin(hint) is Annotated, f"{field.name} has no ParameterSpec"
    assert field.default is not MISSING, f"{field.name} has no default"
    annotation, spec = get_args(hint)
    return SamplingParameter(field.name, annotation, field.default, spec)


def _bound(bound: Bound, model: object) -> float | None:
    found: float | None = attrgetter(bound)(model) if isinstance(bound, str) else bound
    return found
