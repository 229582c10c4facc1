"""Routes, bodies and errors of the HTTP server, from its own OpenAPI schema."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from markdown_table import code, table

from multimodal_gen import errors
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.app import create_app
from multimodal_gen.entrypoints.http.ops.docs.schema import schema_of
from multimodal_gen.entrypoints.http.ops.docs.sections import SECTIONS
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.service import Service

_BODIES = ("/v1/images/generations", "/v1/images/edits", "/v1/videos")
_TREE = re.compile(r"^[├└]── (\w+) +(.*)$", re.MULTILINE)


@cache
def _schema() -> Mapping[str, Any]:
    args = ServerArgs()
    service = Service(args)
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(service, Jobs.in_folder(Path(folder), service, args), args)
        return schema_of(app, needs_key=False)


def routes() -> str:
    """Return a table of routes for each section, and examples of those that take a body."""
    rows: dict[str, list[tuple[str, str]]] = {title: [] for title in SECTIONS}
    examples: dict[str, list[str]] = {title: [] for title in SECTIONS}
    for path, methods in _schema()["paths"].items():
        for method, operation in methods.items():
            (section,) = operation["tags"]
            route = code(f"{method.upper()} {path}")
            rows[section].append((route, _purpose(operation)))
            if "requestBody" in operation:
                examples[section].append("\n\n".join([route, *_code(operation)]))
    parts = []
    for title, text in SECTIONS.items():
        table_of_routes = table(("route", "purpose"), rows[title])
        parts += [f"### {title}", text, table_of_routes, *examples[title]]
    return "\n\n".join(parts)


def _purpose(operation: Mapping[str, Any]) -> str:
    """Return the first paragraph of a route's description."""
    return " ".join(str(operation["description"]).split("\n\n")[0].split())


def _code(operation: Mapping[str, Any]) -> Iterator[str]:
    """Return its examples as blocks of code."""
    for sample in operation["x-codeSamples"]:
        language = {"Shell": "bash"}.get(sample["lang"], sample["lang"].lower())
        yield f"```{language}\n{sample['source'].rstrip()}\n```"


def body_fields() -> str:
    """Return the fields of the bodies that make images and videos, each field once."""
    parts = []
    shown: set[str] = set()
    for path in _BODIES:
        contents = _schema()["paths"][path]["post"]["requestBody"]["content"]
        found = next(iter(contents.values()))["schema"]
        required = found.get("required", [])
        rows = [
            (code(field), _kind(spec), "yes" if field in required else "")
            for field, spec in found["properties"].items()
            if _kind(spec) and field not in shown
        ]
        more = "Takes the fields above that apply to it, and:" if shown else ""
        parts += [f"### POST {path}", more, table(("field", "value", "required"), rows)]
        shown |= found["properties"].keys()
    return "\n\n".join(filter(None, parts))


def _kind(spec: Mapping[str, Any]) -> str:
    """Return the type in words; nothing for a field that only takes null."""
    if "$ref" in spec:
        return str(spec["$ref"]).rpartition("/")[2]
    if "enum" in spec:
        return ", ".join(map(str, spec["enum"]))
    if "const" in spec:
        return str(spec["const"])
    if "anyOf" in spec:
        return " or ".join(dict.fromkeys(filter(None, map(_kind, spec["anyOf"]))))
    if spec.get("type") == "array":
        return f"list of {_kind(spec['items'])}"
    kind = spec.get("type", "")
    return "" if kind == "null" else str(kind)


def error_codes() -> str:
    """Return each error with its code and HTTP status."""
    rows = []
    for name, meaning in _TREE.findall(errors.__doc__ or ""):
        kind = getattr(errors, name)
        rows.append((code(kind.code), str(errors.HTTP_STATUS[kind]), code(name), meaning))
    return table(("code", "HTTP status", "Python class", "meaning"), rows)
