"""Parses JSON from clients: what it returns can be encoded, compared and counted safely.

Numbers are finite and fit 64 bits, strings are Unicode without NUL, and neither the number of
values nor their depth is large. Everything else is refused here, once for all protocols.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from typing import Any

import msgspec
from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError

from multimodal_gen.errors import InvalidRequest

MAX_VALUES = 50_000
"""Parsing takes time and memory in proportion to them."""
MAX_DEPTH = 64
MAX_TEXT = 2**20
"""Characters of a string that is not ASCII, which takes up to four bytes for each."""
VALUE_BYTES = 1000
"""Memory that a parsed value counts for: up to 300 bytes of an object with one key, and more since
the garbage collector stops everything for a time in proportion to such objects."""
_INTEGERS = range(-(2**63), 2**64)
_MAX_DIGITS = 100
_SLICE = 2**20

Body = bytes | bytearray
JsonPath = tuple[str | int, ...]


class NumberOutOfRange(InvalidRequest):
    """A number that is not finite, or does not fit 64 bits."""


def count_values(body: Body) -> int:
    """Upper bound on the values in JSON, without parsing it. Raises HTTPException for too many."""
    # In slices: other threads have to wait while bytes are counted.
    slices = range(0, len(body), _SLICE)
    count = 1 + sum(body.count(b",", start, start + _SLICE) for start in slices)
    if count > MAX_VALUES:
        raise HTTPException(413, f"the body must have at most {MAX_VALUES} values")
    return count


def parse_json(body: Body) -> Any:
    """Parse UTF-8 JSON. Raises RequestValidationError if it is invalid, InvalidRequest with the
    name of the field that has a bad value, and HTTPException for too many values."""
    count_values(body)
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _slowly(body)
    check_values(found)
    return found


def maybe_json(text: str) -> Any:
    """Parse text that is a list, a dict or null in JSON; other text is left to pydantic."""
    if text != "null" and text[:1] not in ("[", "{"):
        return text
    try:
        return parse_json(text.encode())
    except (RequestValidationError, HTTPException, InvalidRequest):
        return text


def check_values(value: Any) -> None:
    """Check a parsed value and all that it contains. Raises InvalidRequest."""
    level = [value]
    for _ in range(MAX_DEPTH):
        if not all(map(_is_usable, level)):
            _find(value, ())
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return
    _find(value, ())


def _inside(value: Any) -> Iterable[Any]:
    """Values in a list or object, and the object's keys."""
    if isinstance(value, dict):
        return itertools.chain(value, value.values())
    return value if isinstance(value, list) else ()


def _is_usable(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii() and "\0" not in value
    if isinstance(value, int):
        return value in _INTEGERS
    return not isinstance(value, float) or math.isfinite(value)


def _find(value: Any, place: JsonPath) -> None:
    """Raise InvalidRequest with the place of an unusable value, if there is one."""
    if len(place) > MAX_DEPTH:
        raise InvalidRequest(name_of(place[:3]), "…", f"must be nested at most {MAX_DEPTH} deep")
    if isinstance(value, dict):
        for key, inner in value.items():
            check_name(key, (*place, key))
            _find(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _find(inner, (*place, index))
    elif isinstance(value, str):
        check_text(value, place)
    elif not _is_usable(value):
        raise NumberOutOfRange(name_of(place), value, "must be a finite number of at most 64 bits")


def check_text(text: str, place: JsonPath) -> None:
    """Raise InvalidRequest for text that can't be stored, encoded or sent on."""
    check_name(text, place)
    if "\0" in text:
        raise InvalidRequest(name_of(place), text[:100], "must not contain NUL")


def check_name(text: str, place: JsonPath) -> None:
    """Raise InvalidRequest for a field's name that can't be shown."""
    if not text.isascii():
        if len(text) > MAX_TEXT:
            raise InvalidRequest(name_of(place), "…", f"must have at most {MAX_TEXT} characters")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidRequest(name_of(place), text, "must be valid Unicode") from None


def name_of(place: JsonPath) -> str:
    """Name of a field in an error: `lora.0.name`."""
    name = ".".join(str(part)[:60] for part in place) or "body"
    return name.encode("ascii", "backslashreplace").decode()


def _slowly(body: Body) -> Any:
    """Parse what the fast parser refuses, to name what is wrong with it."""
    try:
        return json.loads(body.decode("utf-8-sig"), parse_int=_integer)
    except UnicodeDecodeError:
        raise _invalid(0, "it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _invalid(error.pos, error.msg) from None
    except RecursionError:
        raise _invalid(0, f"it is nested more than {MAX_DEPTH} deep") from None


def _integer(digits: str) -> float:
    """Parsing takes time in proportion to the square of the digits."""
    return int(digits) if len(digits) < _MAX_DIGITS else math.inf


def _invalid(position: int, why: str) -> RequestValidationError:
    found = {"type": "json_invalid", "loc": ("body", position), "msg": "", "input": None}
    return RequestValidationError([{**found, "ctx": {"error": why}}])
