"""The schema of all routes (OpenAPI), with sections and examples."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from multimodal_gen.entrypoints.http.ops.docs.examples import EXAMPLES
from multimodal_gen.entrypoints.http.ops.docs.sections import SECTIONS

_NEVER_STATUS, _NEVER_NAMES = "422", ("HTTPValidationError", "ValidationError")
"""FastAPI adds these to every schema; here they are returned as 400 in the error envelope."""


def schema_of(app: FastAPI, *, needs_key: bool) -> dict[str, Any]:
    """FastAPI's schema, corrected: how keys are sent, and no 422. Examples are `x-codeSamples`."""
    schema = app.openapi()
    schema["tags"] = [{"name": name, "description": text} for name, text in SECTIONS.items()]
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            operation.get("responses", {}).pop(_NEVER_STATUS, None)
            samples = code_samples(method.upper(), path, needs_key=needs_key)
            if samples:
                operation["x-codeSamples"] = samples
    components = schema.setdefault("components", {})
    for name in _NEVER_NAMES:
        components.get("schemas", {}).pop(name, None)
    if needs_key:
        components["securitySchemes"] = {"api_key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"api_key": []}]
    return schema


def code_samples(method: str, path: str, *, needs_key: bool) -> list[dict[str, str]]:
    """Return the examples of a route, by language."""
    if (example := EXAMPLES.get(f"{method} {path}")) is None:
        return []
    samples = [{"lang": "Shell", "source": example.curl(method, path, needs_key=needs_key)}]
    if example.python:
        samples.append({"lang": "Python", "source": example.python})
    return samples
