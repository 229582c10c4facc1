"""OpenAPI schema of ComfyUI's routes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from multimodal_gen.entrypoints.http.transport.warnings import WarningInfo


class Problem(BaseModel):
    """An error."""

    type: str
    message: str
    details: str
    extra_info: dict[str, Any]


class NodeProblems(BaseModel):
    """Errors of one node."""

    errors: list[Problem]
    dependent_outputs: list[str]
    class_type: str | None


class Refusal(BaseModel):
    """An error reply in ComfyUI's format."""

    error: Problem
    node_errors: dict[str, NodeProblems]


class Accepted(BaseModel):
    """A queued prompt."""

    prompt_id: str
    number: float
    node_errors: dict[str, NodeProblems]
    warnings: list[WarningInfo]
    """What of the graph has no effect, or another than asked for."""


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Error responses of a route: these statuses, and a missing key."""
    return {status: _refusal(status) for status in (401, *statuses)}


def _refusal(status: int) -> dict[str, Any]:
    said = {"description": HTTPStatus(status).phrase}
    if status in _BEFORE_ROUTES:
        return {**said, "content": {"application/json": {}}}
    return {**said, "model": Refusal}


def json_body(*needed: str, optional: bool = False, **properties: Any) -> dict[str, Any]:
    """Schema of a JSON body, which may be `optional`, of any content type."""
    schema = {"type": "object", "properties": properties, "required": list(needed)}
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"content": content, "required": not optional}}


_BEFORE_ROUTES = (401, 413, 429)
"""Statuses that the server returns for all protocols in the common format."""
TEXT = {"type": "string"}
FLAG = {"type": "boolean"}
IDS = {"type": "array", "items": TEXT}
GRAPH = {"type": "object", "description": "A graph in ComfyUI's API format.", "minProperties": 1}
PROMPT = json_body(
    "prompt",
    prompt=GRAPH,
    client_id=TEXT,
    prompt_id=TEXT,
    extra_data={"type": "object"},
    number={"type": "number"},
    front=FLAG,
    partial_execution_targets=IDS,
)
PAGE: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "query", "required": False, "schema": {"type": "integer"}}
        for name in ("max_items", "offset")
    ]
}
FREE = json_body(optional=True, unload_models=FLAG, free_memory=FLAG)
QUEUE = json_body(clear=FLAG, delete=IDS)
INTERRUPT = json_body(optional=True, prompt_id={"type": ["string", "null"]})
UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "type": {"type": "string", "enum": ["input", "temp", "output"]},
                        "subfolder": TEXT,
                        "overwrite": TEXT,
                    },
                    "required": ["image"],
                }
            }
        },
    }
}
FILE: dict[str, Any] = {
    "content": {kind: {} for kind in ("image/*", "video/mp4")},
    "description": "The file.",
}
