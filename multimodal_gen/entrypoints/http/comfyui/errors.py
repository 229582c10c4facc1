"""Errors in ComfyUI's format: `{"error": …, "node_errors": {node: {"errors": […], …}}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import Response

from multimodal_gen.entrypoints.http.bodies.json_body import NumberOutOfRange
from multimodal_gen.errors import InvalidRequest

_MAX_SHOWN = 200
_IN_NODE = re.compile(r"prompt\.([^.]+)\.inputs\.([^.]+)")


class InvalidPrompt(Exception):
    """A refused prompt; `node_errors` is by node id."""

    def __init__(
        self,
        type: str,
        message: str,
        details: str = "",
        node_errors: Mapping[str, Any] | None = None,
        **extra_info: Any,
    ) -> None:
        super().__init__(message)
        self.error = problem(type, message, details, **extra_info)
        self.node_errors = dict(node_errors or {})

    def response(self) -> Response:
        return json_response({"error": self.error, "node_errors": self.node_errors}, 400)


class InvalidInput(Exception):
    """An input of a node has an invalid value or source."""

    def __init__(self, node: str, input_name: str, problem: dict[str, Any]) -> None:
        super().__init__(problem["message"])
        self.node = node
        self.input_name = input_name
        self.problem = problem


def problem(type: str, message: str, details: str, **extra_info: Any) -> dict[str, Any]:
    return {"type": type, "message": message, "details": details, "extra_info": extra_info}


def meaningless(node: str, input_name: str, why: str, **extra_info: Any) -> InvalidInput:
    """Error for an input that ComfyUI supports but this server or its model does not."""
    message = "Custom validation failed for node"
    details = f"{input_name} - {why}"
    found = problem(
        "custom_validation_failed", message, details, input_name=input_name, **extra_info
    )
    return InvalidInput(node, input_name, found)


def failed(node_errors: Mapping[str, Any]) -> InvalidPrompt:
    """Error for a prompt without any valid output."""
    details = "\n".join(
        f"{each['message']}: {each['details']}"
        for entry in node_errors.values()
        for each in entry["errors"]
    )
    message = "Prompt outputs failed validation"
    return InvalidPrompt("prompt_outputs_failed_validation", message, details, node_errors)


def unusable(error: InvalidRequest) -> InvalidPrompt:
    """Error for a value in a body that no field takes, with its node if it is in one."""
    if (place := _IN_NODE.fullmatch(error.field or "")) is None:
        return InvalidPrompt("invalid_json", error.message)
    node, input_name = place.groups()
    is_number = isinstance(error, NumberOutOfRange)
    kind = "value_bigger_than_max" if is_number else "invalid_input_type"
    found = problem(kind, error.message, input_name, input_name=input_name)
    entry = {"errors": [found], "dependent_outputs": [], "class_type": None}
    return failed({node: entry})


def as_comfyui(error: Mapping[str, Any]) -> dict[str, Any]:
    """Error body without a node: full queue, no engine, or no such route."""
    found = problem(str(error["code"]), error["message"], "")
    return {"error": found, "node_errors": {}}


def json_response(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def shown(value: object) -> str:
    """Format a value from the request, shortened."""
    text = str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
