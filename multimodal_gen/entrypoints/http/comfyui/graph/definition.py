"""Definitions of nodes: their inputs and outputs, as in `/object_info`, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimodal_gen.entrypoints.http.comfyui.graph.node_inputs import NodeInputs

MAX_SIDE = 16384
MAX_SEED = 2**64 - 1

Meaning = Callable[["NodeInputs"], tuple[object, ...]]
"""Returns the value of each output of a node, from graph/values.py; nothing is executed. Raises
InvalidInput for what this server can't do."""


@dataclass(frozen=True)
class Input:
    """One input of a node: an output type of another node, or a value."""

    type: str
    """`INT`, `FLOAT`, `STRING`, `BOOLEAN`, `COMBO`, or an output type: `MODEL`, `LATENT`, …; `*`
    is any."""
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    open: bool = False
    """For a COMBO: other values are accepted too."""
    optional: bool = False

    @property
    def is_value(self) -> bool:
        return self.type in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")

    @property
    def default(self) -> Any:
        """Value that a client shows first."""
        return self.options.get("default", self.choices[0] if self.choices else None)

    def accepts(self, type: str | None) -> bool:
        """True if an output of this type can be linked to it."""
        if "*" in (type, self.type):
            return type is not None
        return type == self.type or (self.type == "COMBO" and type == "STRING")

    def to_json(self) -> list[Any]:
        kind: Any = list(self.choices) if self.type == "COMBO" else self.type
        return [kind, dict(self.options)] if self.options else [kind]


@dataclass(frozen=True)
class NodeClass:
    """A kind of node."""

    name: str
    title: str
    category: str
    inputs: Mapping[str, Input]
    meaning: Meaning
    outputs: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    is_output: bool = False
    """True for nodes that produce results."""
    branches: tuple[str, str, str] | None = None
    """For a node that needs one of two inputs: a flag, the input if it is false, and if it is
    true."""
    idle: str = "not supported by this server"
    """Why those of its inputs that `meaning` does not read have no effect."""

    def to_json(self) -> dict[str, Any]:
        """Return the entry in `/object_info`."""
        groups = {
            "required": {k: v.to_json() for k, v in self.inputs.items() if not v.optional},
            "optional": {k: v.to_json() for k, v in self.inputs.items() if v.optional},
        }
        given = {name: group for name, group in groups.items() if group or name == "required"}
        return {
            "input": given,
            "input_order": {name: list(group) for name, group in given.items()},
            "output": list(self.outputs),
            "output_is_list": [False] * len(self.outputs),
            "output_name": list(self.output_names or self.outputs),
            "name": self.name,
            "display_name": self.title,
            "description": "",
            "python_module": "nodes",
            "category": self.category,
            "output_node": self.is_output,
        }


NodeDefinitions = Mapping[str, NodeClass]


def link(type: str, *, optional: bool = False) -> Input:
    """Input that must be linked to an output of `type`."""
    return Input(type, optional=optional)


def integer(default: int, low: int, high: int, step: int = 1, *, optional: bool = False) -> Input:
    return Input("INT", _numbers(default, low, high, step), optional=optional)


def real(default: float, low: float, high: float, *, optional: bool = False) -> Input:
    return Input("FLOAT", _numbers(default, low, high, 1), optional=optional)


def flag(default: bool) -> Input:
    return Input("BOOLEAN", {"default": default})


def string(default: str = "") -> Input:
    return Input("STRING", {"default": default})


def prompt_text() -> Input:
    return Input("STRING", {"multiline": True, "dynamicPrompts": True})


def choice(*choices: str, optional: bool = False) -> Input:
    """One of `choices`, by default the first."""
    return Input("COMBO", choices=choices, optional=optional)


def named(*choices: str) -> Input:
    """Any name; `choices` are suggestions."""
    return Input("COMBO", choices=choices, open=True)


def seed() -> Input:
    return Input("INT", {"default": 0, "min": 0, "max": MAX_SEED, "control_after_generate": True})


def by_name(nodes: Sequence[NodeClass]) -> NodeDefinitions:
    return {node.name: node for node in nodes}


def _numbers(default: float, low: float, high: float, step: int) -> dict[str, Any]:
    options: dict[str, Any] = {"default": default, "min": low, "max": high}
    if step > 1:
        options["step"] = step
    return options
