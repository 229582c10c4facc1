"""Values that graphs compute, and choose from."""

from __future__ import annotations

import math

from multimodal_gen.entrypoints.http.comfyui.graph.arithmetic import Number, evaluate
from multimodal_gen.entrypoints.http.comfyui.graph.definition import (
    Input,
    NodeClass,
    choice,
    flag,
    integer,
    link,
    prompt_text,
    real,
    string,
)
from multimodal_gen.entrypoints.http.comfyui.graph.node_inputs import NodeInputs
from multimodal_gen.entrypoints.http.comfyui.graph.values import Given

_MOST = 2**63 - 1
_RATIOS = {
    "1:1 (Square)": (1, 1),
    "3:2 (Photo)": (3, 2),
    "4:3 (Standard)": (4, 3),
    "16:9 (Widescreen)": (16, 9),
    "21:9 (Ultrawide)": (21, 9),
    "2:3 (Portrait Photo)": (2, 3),
    "3:4 (Portrait Standard)": (3, 4),
    "9:16 (Portrait Widescreen)": (9, 16),
}
_NAMES = "abcdefgh"


def logic() -> tuple[NodeClass, ...]:
    texts = {name: string() for name in ("string_a", "string_b", "delimiter")}
    numbers = {f"values.{name}": link("*", optional=True) for name in _NAMES}
    return (
        _primitive("PrimitiveInt", integer(0, -_MOST, _MOST)),
        _primitive("PrimitiveFloat", real(0.0, -_MOST, _MOST)),
        _primitive("PrimitiveString", string()),
        _primitive("PrimitiveStringMultiline", prompt_text()),
        _primitive("PrimitiveBoolean", flag(False)),
        NodeClass(
            "ComfySwitchNode",
            "Switch",
            "logic",
            {
                "switch": flag(False),
                "on_false": link("*", optional=True),
                "on_true": link("*", optional=True),
            },
            _switch,
            ("*",),
            ("output",),
            branches=("switch", "on_false", "on_true"),
        ),
        NodeClass(
            "ComfyMathExpression",
            "Math Expression",
            "math",
            {"expression": string("a + b"), **numbers},
            _compute,
            ("FLOAT", "INT", "BOOLEAN"),
            ("FLOAT", "INT", "BOOL"),
        ),
        NodeClass(
            "StringConcatenate",
            "Concatenate",
            "utils/string",
            texts,
            _concatenate,
            ("STRING",),
        ),
        NodeClass(
            "ResolutionSelector",
            "Resolution Selector",
            "utils",
            {"aspect_ratio": choice(*_RATIOS), "megapixels": real(1.0, 0.1, 16.0)},
            _resolve,
            ("INT", "INT"),
            ("width", "height"),
        ),
    )


def _primitive(name: str, value: Input) -> NodeClass:
    return NodeClass(
        name,
        name.removeprefix("Primitive"),
        "utils/primitive",
        {"value": value},
        lambda inputs: (inputs.given("value"),),
        (value.type,),
    )


def _switch(inputs: NodeInputs) -> tuple[object, ...]:
    chosen, other = ("on_true", "on_false") if inputs.value("switch") else ("on_false", "on_true")
    if not inputs.has(chosen) and not inputs.has(other):
        raise inputs.refused("on_false", "on_false or on_true must be linked")
    return (inputs.anything(chosen if inputs.has(chosen) else other),)


def _compute(inputs: NodeInputs) -> tuple[object, ...]:
    given = inputs.given("expression")
    values: dict[str, Number] = {}
    for name in _NAMES:
        if inputs.has(f"values.{name}"):
            found = inputs.anything(f"values.{name}")
            if not isinstance(found, Given) or not isinstance(found.value, int | float):
                raise inputs.refused(f"values.{name}", "must be a number")
            values[name] = found.value
    try:
        result = evaluate(given.value, values)
        results = (float(result), int(result), bool(result))
    except (ValueError, OverflowError) as error:
        raise inputs.refused("expression", str(error)) from error
    return tuple(Given(each, given.node, given.name) for each in results)


def _concatenate(inputs: NodeInputs) -> tuple[object, ...]:
    first = inputs.given("string_a")
    text = inputs.value("delimiter").join((first.value, inputs.value("string_b")))
    return (Given(text, first.node, first.name),)


def _resolve(inputs: NodeInputs) -> tuple[object, ...]:
    given = inputs.given("aspect_ratio")
    ratio = _RATIOS[given.value]
    scale = math.sqrt(inputs.value("megapixels") * 2**20 / (ratio[0] * ratio[1]))
    return tuple(Given(round(side * scale / 8) * 8, given.node, given.name) for side in ratio)
