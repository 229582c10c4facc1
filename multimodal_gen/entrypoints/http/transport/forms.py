"""Parses request bodies, JSON or form, into one pydantic model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, get_args

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from multimodal_gen.entrypoints.http.bodies.form_body import FORMS, FormFile
from multimodal_gen.entrypoints.http.bodies.json_body import maybe_json
from multimodal_gen.entrypoints.http.bodies.reading import read_form, read_json
from multimodal_gen.entrypoints.http.openai.parameter_fields import NESTED
from multimodal_gen.entrypoints.http.transport.links import follow_links

M = TypeVar("M", bound=BaseModel)

_JSON = "application/json"
_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_MAX_DEPTH = 4
_EMPTY_IS_TEXT = frozenset({"prompt", "negative_prompt"})

Value = str | bytes


async def parse_body(request: Request, model: type[M]) -> M:
    """Parse the body as a `model`. In a form, files are bytes and numbers are parsed from text;
    links to images are fetched if the operator allows it.

    Raises RequestValidationError, InvalidRequest, and HTTPException for content that is neither
    JSON nor a form.
    """
    body = await _read(request, model)
    await follow_links(request, body)
    return body


async def _read(request: Request, model: type[M]) -> M:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _JSON or kind.endswith("+json"):
        return _validated(model, _flat(await read_json(request)), strict=True)
    if kind in FORMS:
        fields = [
            (name, value.content if isinstance(value, FormFile) else value)
            for name, value in await read_form(request)
        ]
        if kind == FORMS[1] and fields and fields[0][0].lstrip()[:1] == "{":
            raise HTTPException(
                400, f"the body is JSON, sent as {kind}: send content-type: {_JSON}"
            )
        return _validated(model, _flat(_unpacked(model, fold(fields))), strict=False)
    raise RequestValidationError([{"type": "missing", "loc": ("body",), "msg": "", "input": None}])


def fold(items: Iterable[tuple[str, Value]]) -> dict[str, Any]:
    """Fields of a form as nested values: `a` twice, `a[]` and `a[0]` are a list, `a[b]` is a
    dict."""
    folded: dict[str, Any] = {}
    for name, value in items:
        match = _KEY.fullmatch(name)
        path = re.findall(r"\[([^\[\]]*)\]", match[2]) if match else []
        if match is None or len(path) > _MAX_DEPTH:
            folded[name] = value
        else:
            _put(folded, match[1], path, value)
    return {name: _listed(value) for name, value in folded.items()}


def body_schema(model: type[BaseModel], *kinds: str) -> dict[str, Any]:
    """Return the OpenAPI request body of a route that parses a `model` of these content types."""
    schema = _inlined(model.model_json_schema())
    return {
        "requestBody": {
            "required": True,
            "content": {kind: {"schema": schema} for kind in kinds or (_JSON, FORMS[0])},
        }
    }


def _put(into: dict[str, Any], name: str, path: list[str], value: Value) -> None:
    """Insert a value; `path` are the keys in brackets after `name`. Lists are dicts by index
    here."""
    if not path:
        if name in into:
            old = into[name]
            into[name] = old if isinstance(old, _List) else _List({0: old})
            into[name][len(into[name])] = value
        else:
            into[name] = value
        return
    key = path[0]
    kind = _List if not key or key.isdecimal() else dict
    inner = into.get(name)
    if not isinstance(inner, dict):
        inner = kind() if inner is None else _List({0: inner})
        into[name] = inner
    if not key:
        key = str(len(inner))
    _put(inner, key, path[1:], value)


class _List(dict[Any, Any]):
    """Entries by index, or by order."""


def _listed(value: Any) -> Any:
    if isinstance(value, _List):
        return [_listed(entry) for entry in value.values()]
    if isinstance(value, dict):
        return {name: _listed(entry) for name, entry in value.items()}
    return value


def _unpacked(model: type[BaseModel], given: dict[str, Any]) -> dict[str, Any]:
    """Remove fields that were left empty, and parse JSON in text fields that require it."""
    kept = {name: value for name, value in given.items() if value != "" or name in _EMPTY_IS_TEXT}
    for name, field in model.model_fields.items():
        value = kept.get(name)
        is_text = str in (field.annotation, *get_args(field.annotation))
        if isinstance(value, str) and not is_text:
            kept[name] = maybe_json(value)
    return kept


def _flat(given: Any) -> Any:
    """Move the fields of nested objects up to where they are meant; explicit ones win. The objects
    stay, so that they are named in a warning."""
    if not isinstance(given, dict):
        return given
    nested = {name: given[name] for name in NESTED if name in given}
    for value in nested.values():
        inner = maybe_json(value) if isinstance(value, str) else value
        if isinstance(inner, dict):
            given = inner | given
    return given


def _validated(model: type[M], given: Any, *, strict: bool) -> M:
    try:
        return model.model_validate(given, strict=strict)
    except ValidationError as error:
        found = [
            {**each, "loc": ("body", *_place(each["loc"], given, each["type"] == "missing"))}
            for each in error.errors(include_url=False)
        ]
        raise RequestValidationError(found) from None


def _place(loc: Sequence[int | str], given: Any, missing: bool) -> Iterator[int | str]:
    """Location of an error in `given`, without the union branches that pydantic adds."""
    for depth, part in enumerate(loc, 1):
        inside = isinstance(given, dict) and part in given
        if inside or (isinstance(given, list) and isinstance(part, int)):
            given = given[part]
            yield part
        elif depth == 1 or (missing and depth == len(loc)):
            yield part


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` without `$defs`: OpenAPI has its definitions in another place."""
    definitions = schema.pop("$defs", {})

    def replaced(part: Any) -> Any:
        if isinstance(part, list):
            return [replaced(each) for each in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return replaced(definitions[part["$ref"].rpartition("/")[2]])
        return {key: replaced(value) for key, value in part.items()}

    return {key: replaced(value) for key, value in schema.items()}
