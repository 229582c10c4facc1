"""Constants that are linked to inputs."""

from __future__ import annotations

from multimodal_gen.entrypoints.http.comfyui.graph.definition import (
    Input,
    NodeClass,
    flag,
    integer,
    prompt_text,
    real,
    string,
)

_MOST = 2**63 - 1


def primitives() -> tuple[NodeClass, ...]:
    return (
        _primitive("PrimitiveInt", integer(0, -_MOST, _MOST)),
        _primitive("PrimitiveFloat", real(0.0, -_MOST, _MOST)),
        _primitive("PrimitiveString", string()),
        _primitive("PrimitiveStringMultiline", prompt_text()),
        _primitive("PrimitiveBoolean", flag(False)),
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
