"""Routes, bodies and errors of the HTTP server, from its own OpenAPI schema."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from markdown_table import code, table

from multimodal_gen import errors
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.entrypoints.http.app import create_app
from multimodal_gen.entrypoints.http.ops.docs import schema_of
from multimodal_gen.serving.jobs import Jobs
from multimodal_gen.serving.service import Service

_SECTIONS = {
    "OpenAI: images": ("/v1/images", "/files"),
    "OpenAI: videos": ("/v1/videos",),
    "Models": ("/v1/models", "/model_info"),
    "Jobs": ("/v1/jobs",),
    "Health and monitoring": (
        "/health",
        "/liveness",
        "/metrics",
        "/operator",
        "/server_info",
        "/version",
    ),
    "AUTOMATIC1111": ("/sdapi",),
    "Hugging Face": ("/hf", "/models/{model}"),
    "Playground": ("/playground", "/"),
    "ComfyUI": ("",),
}
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
    """Return a table of routes for each protocol."""
    sections: dict[str, list[tuple[str, str]]] = {title: [] for title in _SECTIONS}
    for path, methods in _schema()["paths"].items():
        for method, operation in methods.items():
            words = operation.get("description") or operation.get("summary", "")
            row = (code(f"{method.upper()} {path}"), words.split("\n\n")[0])
            sections[_section(path)].append(row)
    parts = []
    for title, rows in sections.items():
        parts += [f"### {title}", table(("route", "purpose"), rows)]
    return "\n\n".join(parts)


def _section(path: str) -> str:
    for title, prefixes in _SECTIONS.items():
        if any(path == prefix if prefix == "/" else path.startswith(prefix) for prefix in prefixes):
            return title
    raise KeyError(path)


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
