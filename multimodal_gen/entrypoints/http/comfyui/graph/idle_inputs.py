"""Names inputs of nodes that have no effect."""

from __future__ import annotations

from multimodal_gen.entrypoints.http.comfyui.errors import shown
from multimodal_gen.entrypoints.http.comfyui.graph.graph import Node
from multimodal_gen.entrypoints.http.comfyui.graph.node_inputs import NodeInputs
from multimodal_gen.messages.request_warning import RequestWarning

_BUTTONS = ("upload", "choose file to upload")
"""The editor exports these as inputs."""


def idle_inputs(inputs: NodeInputs) -> list[RequestWarning]:
    """Warnings for values that were not read and are not a default, and for unknown inputs."""
    node, kind = inputs.node, inputs.node.kind
    where = f"{kind.name} {shown(node.id)}"
    idle = [name for name in kind.inputs if _is_idle(inputs, name)]
    empty = [name for name in kind.inputs if name in inputs.read and _is_null(node, name)]
    unknown = [name for name in node.inputs if name not in kind.inputs and name not in _BUTTONS]
    warnings = [RequestWarning("no_effect", None, f"{where} {what}") for what in inputs.warnings]
    warnings += [
        RequestWarning("replaced", name, f"{where}: {name} is null, and read as an empty text")
        for name in empty
    ]
    if idle:
        listed = ", ".join(f"{name}={shown(node.inputs[name])}" for name in idle)
        text = f"{where}: {listed} has no effect: {kind.idle}"
        warnings.append(RequestWarning("no_effect", _only(idle), text))
    if unknown:
        listed = ", ".join(shown(name) for name in unknown)
        text = f"{where}: unknown inputs: {listed}"
        warnings.append(RequestWarning("unknown_field", _only(unknown), text))
    return warnings


def _only(names: list[str]) -> str | None:
    """The name, if there is only one."""
    return names[0] if len(names) == 1 else None


def _is_idle(inputs: NodeInputs, name: str) -> bool:
    node, spec = inputs.node, inputs.node.kind.inputs[name]
    if not spec.is_value or name not in node.inputs or name in inputs.read:
        return False
    return name in inputs.ignored or node.inputs[name] != spec.default


def _is_null(node: Node, name: str) -> bool:
    return node.kind.inputs[name].type == "STRING" and node.inputs.get(name, "") is None
