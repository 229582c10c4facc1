"""Guesses at the meaning of a request that can't be served: one line that leads to it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Any

from multimodal_gen.configs.declarations.similar_names import similar_name

_LONGEST, _MOST_NAMES = 200, 100
_ALIKE = 0.75
_ALSO_CALLED = {
    "prompt": ("text", "inputs", "input", "query", "caption", "description"),
    "inputs": ("prompt", "input", "text"),
    "image": ("file", "images", "init_images", "image_url", "picture", "input_reference"),
}
"""Names that other servers have for fields that must be given."""
_OTHER_WORK = re.compile(r"/(chat/completions|completions|responses|embeddings|audio/.*)$")
_MAKE = "POST /v1/images/generations makes images, POST /v1/videos videos"
_NOT_HERE = {
    "POST /v1/jobs": "jobs are made by POST /v1/videos, and by POST "
    "/v1/images/generations with run_in_background"
}


def missing(field: str, given: object) -> str:
    """Say that a field is missing, and which of the `given` ones may have been meant for it."""
    names = [*given][:_MOST_NAMES] if isinstance(given, dict) else []
    sent = next((name for name in names if _is_meant(name, field)), None)
    return f"{field} is missing" + (f": {sent[:60]!a} was sent in its place" if sent else "")


def _is_meant(name: object, field: str) -> bool:
    if not isinstance(name, str) or name == field:
        return False
    other = _ALSO_CALLED.get(field, ())
    return name.lower() in (field, *other) or similar_name(name[:60], (field,)) == field


def unknown(name: str, known: Collection[str]) -> str:
    """Say that a field is unknown, and which of the `known` ones may be meant."""
    meant = similar_field(name, known)
    hint = f"; did you mean {meant}?" if meant else ""
    return f"{name[:60]!a} is unknown and was ignored{hint}"


def similar_field(name: str, known: Collection[str]) -> str | None:
    """The known field that is meant by another, unless only a short word is the same."""
    meant = similar_name(name[:60], known)
    is_short_word = meant is not None and len(name) < 4 and name in meant.split("_")
    return None if is_short_word else meant


def no_route(method: str, path: str, known: Iterable[str]) -> str:
    """Say that there is no such route, and which of the `known` ones, as `GET /path`, is meant."""
    path = path[:_LONGEST]
    if _OTHER_WORK.search(path):
        return f"no route {path!a}: this server makes images and videos; {_MAKE}"
    # A route of the same method rather than another.
    routes = sorted(known, key=lambda each: not each.startswith(f"{method} "))
    paths = [each.partition(" ")[2] for each in routes]
    asked = path.removeprefix("/api").rstrip("/") or path
    found = _ending_alike(asked, paths) or next(
        iter(get_close_matches(asked, paths, 1, _ALIKE)), None
    )
    meant = None if found is None else routes[paths.index(found)]
    return f"no route {path!a}" + (f": did you mean {meant}?" if meant else "; /docs lists all")


def _ending_alike(path: str, known: Iterable[str]) -> str | None:
    """The known path that is this one without or with something in front of it, or a slash."""
    alike = (
        each for each in known if len(each) > 1 and (path.endswith(each) or each.endswith(path))
    )
    return max(alike, key=len, default=None)


def wrong_method(method: str, path: str, allowed: Iterable[str]) -> str:
    """Say which methods a path takes."""
    verbs = " or ".join(verb for verb in allowed if verb != "HEAD")
    more = _NOT_HERE.get(f"{method} {path}")
    return f"{path[:_LONGEST]!a} takes {verbs}, not {method}" + (f": {more}" if more else "")


def allowed_values(error: dict[str, Any]) -> str:
    """Return in our words what pydantic allows for a value."""
    context = error.get("ctx", {})
    kind = str(error["type"])
    if kind == "literal_error" and "expected" in context:
        expected = str(context["expected"]).replace("'", "")
        near = get_close_matches(str(error["input"])[:60], re.split(r", | or ", expected), 1)
        return f"must be {expected}" + (f"; did you mean {near[0]}?" if near else "")
    for name, words in _BOUNDS.items():
        if name in context:
            return f"{words} {context[name]}"
    return _KINDS.get(kind.rpartition("_")[0], str(error["msg"]))


_BOUNDS = {
    "le": "must be at most",
    "ge": "must be at least",
    "lt": "must be less than",
    "gt": "must be more than",
}
_KINDS = {
    "int": "must be a whole number",
    "int_from": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text",
    "list": "must be a list",
    "dict": "must be an object",
    "model": "must be an object",
    "model_attributes": "must be an object",
}
"""By the beginning of pydantic's type of error, as in `int_parsing` and `int_type`."""
