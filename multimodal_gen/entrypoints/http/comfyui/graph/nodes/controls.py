"""ControlNets, and the images that steer them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from multimodal_gen.entrypoints.http.comfyui.graph.definition import (
    Input,
    NodeClass,
    choice,
    link,
    named,
    real,
)
from multimodal_gen.entrypoints.http.comfyui.graph.node_inputs import NodeInputs
from multimodal_gen.entrypoints.http.comfyui.graph.values import (
    ConditioningValue,
    ControlNetValue,
    ControlValue,
)

_TYPES = (
    *("auto", "openpose", "depth", "hed/pidi/scribble/ted", "canny/lineart/anime_lineart/mlsd"),
    *("normal", "segment", "tile", "repaint"),
)
_IDLE = "controls are encoded with the model's own VAE"


def control_nodes(names: Sequence[str]) -> tuple[NodeClass, ...]:
    """Nodes that load the controls of these names, and apply them."""
    net, image = {"control_net": link("CONTROL_NET")}, {"image": link("IMAGE")}
    strength = {"strength": real(1.0, 0.0, 10.0)}
    both = {"positive": link("CONDITIONING"), "negative": link("CONDITIONING")}
    times = {"start_percent": real(0.0, 0.0, 1.0), "end_percent": real(1.0, 0.0, 1.0)}
    whole = {**both, **net, **image, **strength, **times}
    vae = {"vae": link("VAE", optional=True)}
    return (
        NodeClass(
            "ControlNetLoader",
            "Load ControlNet Model",
            "loaders",
            {"control_net_name": named(*names)},
            lambda inputs: (ControlNetValue(inputs.given("control_net_name")),),
            ("CONTROL_NET",),
        ),
        NodeClass(
            "SetUnionControlNetType",
            "SetUnionControlNetType",
            "conditioning/controlnet",
            {**net, "type": choice(*_TYPES)},
            _set_type,
            ("CONTROL_NET",),
        ),
        NodeClass(
            "ControlNetApply",
            "Apply ControlNet (OLD)",
            "conditioning/controlnet",
            {"conditioning": link("CONDITIONING"), **net, **image, **strength},
            lambda inputs: (_steered(inputs, "conditioning"),),
            ("CONDITIONING",),
        ),
        _apply("ControlNetApplyAdvanced", {**whole, **vae}),
        _apply("ControlNetApplySD3", {**whole, "vae": link("VAE")}),
    )


def _apply(name: str, inputs: dict[str, Input]) -> NodeClass:
    return NodeClass(
        name,
        "Apply ControlNet",
        "conditioning/controlnet",
        inputs,
        lambda given: (_steered(given, "positive"), given.linked("negative", ConditioningValue)),
        ("CONDITIONING", "CONDITIONING"),
        ("positive", "negative"),
        idle=_IDLE,
    )


def _set_type(inputs: NodeInputs) -> tuple[object, ...]:
    net, kind = inputs.linked("control_net", ControlNetValue), inputs.value("type")
    return (replace(net, mode=None if kind == "auto" else kind.partition("/")[0]),)


def _steered(inputs: NodeInputs, name: str) -> ConditioningValue:
    before = inputs.linked(name, ConditioningValue)
    net, image = inputs.linked("control_net", ControlNetValue), inputs.image()
    scale, span = inputs.value("strength"), (0.0, 1.0)
    if "start_percent" in inputs.node.kind.inputs:
        span = inputs.value("start_percent"), inputs.value("end_percent")
    if not scale or span[0] >= span[1]:
        return before
    return replace(before, controls=(*before.controls, ControlValue(net, image, scale, *span)))
