"""Checks a prompt in ComfyUI's API format against the node definitions."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from multimodal_gen.entrypoints.http.comfyui.errors import (
    InvalidInput,
    InvalidPrompt,
    problem,
    shown,
)
from multimodal_gen.entrypoints.http.comfyui.graph.definition import (
    Input,
    NodeClass,
    NodeDefinitions,
)
from multimodal_gen.entrypoints.http.comfyui.graph.unsupported import (
    OF_THE_EDITOR,
    is_of_the_editor,
    why_unsupported,
)

MAX_NODES = 200
_ALIKE = 0.85


@dataclass(frozen=True)
class Link:
    """A link to output `slot` of another node."""

    node: str
    slot: int


@dataclass(frozen=True)
class Node:
    id: str
    kind: NodeClass
    inputs: Mapping[str, Any]
    """As sent by the client."""


class Graph:
    """Nodes by id. Inputs are checked when they are read."""

    def __init__(self, nodes: Mapping[str, Node], targets: Container[str] | None = None) -> None:
        self.nodes = nodes
        self.outputs = [
            node
            for node in nodes.values()
            if node.kind.is_output and (targets is None or node.id in targets)
        ]
        self._checked: dict[str, tuple[list[tuple[str, Node]], list[InvalidInput]]] = {}

    @classmethod
    def of(
        cls,
        prompt: object,
        definitions: NodeDefinitions,
        targets: Container[str] | None = None,
    ) -> Graph:
        """`targets` are the ids of the outputs to produce; None: all.

        Raises InvalidPrompt for an invalid graph, and for nodes missing in `definitions`.
        """
        if not isinstance(prompt, dict) or not prompt:
            message = "the prompt must be an object of nodes, in ComfyUI's API format"
            raise InvalidPrompt("invalid_prompt", message)
        if is_of_the_editor(prompt):
            raise InvalidPrompt("invalid_prompt", OF_THE_EDITOR)
        if len(prompt) > MAX_NODES:
            message = f"the prompt has {len(prompt)} nodes; at most {MAX_NODES} are allowed"
            raise InvalidPrompt("invalid_prompt", message)
        nodes = {key: _node(key, entry, definitions) for key, entry in prompt.items()}
        graph = cls(nodes, targets)
        if not graph.outputs:
            details = "add a node that keeps its result, such as SaveImage"
            raise InvalidPrompt("prompt_no_outputs", "Prompt has no outputs", details)
        return graph

    def value(self, node: Node, name: str) -> Any:
        """Input value, converted to its type. Raises InvalidInput."""
        return self.checked(node, name, self._given(node, name, node.kind.inputs[name]))

    def checked(self, node: Node, name: str, given: Any) -> Any:
        """`given` as the value of an input. Raises InvalidInput."""
        spec = node.kind.inputs[name]
        value = _converted(node, name, spec, given)
        _check_range(node, name, spec, value)
        return value

    def is_linked(self, node: Node, name: str) -> bool:
        """True if an input is linked to an output of another node; ComfyUI takes any list for a
        link."""
        return isinstance(node.inputs.get(name), list)

    def source(self, node: Node, name: str) -> tuple[Node, int]:
        """Source node and output index of an input. Raises InvalidInput."""
        spec = node.kind.inputs[name]
        link = _link(node, name, spec, self._given(node, name, spec))
        source = self.nodes.get(link.node)
        linked = [link.node, link.slot]
        extra: dict[str, Any] = {"input_config": spec.to_json(), "linked_node": linked}
        if source is None:
            details = f"{name}: no node {shown(link.node)!a}"
            message = "Bad linked input, the node does not exist"
            raise _invalid(node, name, "bad_linked_input", message, details, **extra)
        outputs = source.kind.outputs
        received = outputs[link.slot] if link.slot < len(outputs) else None
        if not spec.accepts(received):
            details = f"{name}, received_type({received}) mismatch input_type({spec.type})"
            message = "Return type mismatch between linked nodes"
            extra["received_type"] = received
            raise _invalid(node, name, "return_type_mismatch", message, details, **extra)
        return source, link.slot

    def order(self, output: Node) -> tuple[list[Node], list[InvalidInput]]:
        """All nodes that `output` depends on, sources first, itself last; and all errors of their
        inputs."""
        ordered: dict[str, Node] = {}
        problems: list[InvalidInput] = []
        walks = {output.id: iter(self._sources(output, problems))}
        stack = [output]
        while stack:
            node = stack[-1]
            name, source = next(walks[node.id], ("", None))
            if source is None:
                ordered[node.id] = stack.pop()
            elif source.id not in walks:
                walks[source.id] = iter(self._sources(source, problems))
                stack.append(source)
            elif source.id not in ordered:
                details = f"{name}: leads back to node {shown(source.id)!a}"
                message = "Dependency cycle detected"
                problems.append(_invalid(node, name, "dependency_cycle", message, details))
        return list(ordered.values()), problems

    def _sources(self, node: Node, problems: list[InvalidInput]) -> list[tuple[str, Node]]:
        """Sources of a node, by input; adds the errors of its inputs, which are checked once."""
        if node.id not in self._checked:
            self._checked[node.id] = self._check_inputs(node)
        found, wrong = self._checked[node.id]
        problems += wrong
        return found

    def _check_inputs(self, node: Node) -> tuple[list[tuple[str, Node]], list[InvalidInput]]:
        found: list[tuple[str, Node]] = []
        problems: list[InvalidInput] = []
        needless = self._needless(node)
        for name, spec in node.kind.inputs.items():
            if name == needless or (spec.optional and name not in node.inputs):
                continue
            try:
                if spec.is_value and not self.is_linked(node, name):
                    self.value(node, name)
                else:
                    found.append((name, self.source(node, name)[0]))
            except InvalidInput as error:
                problems.append(error)
        return found, problems

    def _needless(self, node: Node) -> str | None:
        """The branch that a node does not need, if the other one is there."""
        if node.kind.branches is None:
            return None
        flag, on_false, on_true = node.kind.branches
        chosen = self._constant(node, flag)
        if not isinstance(chosen, bool):
            return None
        used, other = (on_true, on_false) if chosen else (on_false, on_true)
        return other if used in node.inputs else None

    def _constant(self, node: Node, name: str) -> Any:
        """A literal, or that of a primitive which is linked; None if it is neither."""
        for _ in range(MAX_NODES):
            given = node.inputs.get(name)
            if not isinstance(given, list):
                return given
            source = self.nodes.get(str(given[0])) if given else None
            if source is None or not source.kind.name.startswith("Primitive"):
                return None
            node, name = source, "value"
        return None

    def _given(self, node: Node, name: str, spec: Input) -> Any:
        if name not in node.inputs:
            message = "Required input is missing"
            raise _invalid(node, name, "required_input_missing", message, name)
        return node.inputs[name]


def _node(key: str, entry: Any, definitions: NodeDefinitions) -> Node:
    if not isinstance(entry, dict) or not isinstance(entry.get("class_type"), str):
        message = "Cannot execute because a node is missing the class_type property."
        raise _refused("invalid_prompt", message, key, None)
    name = entry["class_type"]
    if (kind := definitions.get(name)) is None:
        near = get_close_matches(name[:100], definitions, 1, _ALIKE)
        guess = (
            f"did you mean {near[0]}?" if near else "GET /object_info lists this server's nodes."
        )
        message = f"Node {shown(name)!r} not found: {why_unsupported(name) or guess}"
        raise _refused("missing_node_type", message, key, name)
    inputs = entry.get("inputs", {})
    if not isinstance(inputs, dict):
        raise _refused("invalid_prompt", "The inputs of a node must be an object.", key, name)
    return Node(key, kind, inputs)


def _refused(type: str, message: str, key: str, name: str | None) -> InvalidPrompt:
    details = f"Node ID '#{shown(key)}'"
    extra: dict[str, Any] = {
        "node_id": shown(key),
        "class_type": None if name is None else shown(name),
    }
    entry = {
        "errors": [problem(type, message, details, **extra)],
        "dependent_outputs": [],
        "class_type": extra["class_type"],
    }
    return InvalidPrompt(type, message, details, {shown(key): entry}, **extra)


def _link(node: Node, name: str, spec: Input, given: Any) -> Link:
    match given:
        case [str() | int() as key, int() as slot] if not isinstance(slot, bool) and slot >= 0:
            return Link(str(key), slot)
    message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
    extra = {"input_config": spec.to_json(), "received_value": shown(given)}
    raise _invalid(node, name, "bad_linked_input", message, name, **extra)


def _converted(node: Node, name: str, spec: Input, given: Any) -> Any:
    kinds = {"INT": int, "FLOAT": float, "STRING": str, "COMBO": str, "BOOLEAN": bool}
    if given is None and spec.type == "STRING":
        return ""
    try:
        if isinstance(given, list | dict) or given is None:
            raise TypeError("not a value")
        value = kinds[spec.type](given)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("not a finite number")
    except (ValueError, TypeError, OverflowError) as error:
        message = f"Failed to convert an input value to a {spec.type} value"
        details = f"{name}, {shown(given)}, {shown(error)}"
        extra = {"input_config": spec.to_json(), "received_value": shown(given)}
        raise _invalid(node, name, "invalid_input_type", message, details, **extra) from None
    return value


def _check_range(node: Node, name: str, spec: Input, value: Any) -> None:
    extra = {"input_config": spec.to_json(), "received_value": value}
    low, high = spec.options.get("min"), spec.options.get("max")
    if low is not None and value < low:
        message = f"Value {value} smaller than min of {low}"
        raise _invalid(node, name, "value_smaller_than_min", message, name, **extra)
    if high is not None and value > high:
        message = f"Value {shown(value)} bigger than max of {high}"
        extra["received_value"] = shown(value)
        raise _invalid(node, name, "value_bigger_than_max", message, name, **extra)
    if spec.type == "COMBO" and not spec.open and value not in spec.choices:
        near = get_close_matches(str(value)[:100], spec.choices, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        details = f"{name}: '{shown(value)}' not in {list(spec.choices)}{hint}"
        extra["received_value"] = shown(value)
        raise _invalid(node, name, "value_not_in_list", "Value not in list", details, **extra)


def _invalid(
    node: Node, name: str, type: str, message: str, details: str, **extra: Any
) -> InvalidInput:
    return InvalidInput(node.id, name, problem(type, message, details, input_name=name, **extra))
