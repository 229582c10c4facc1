"""Names parameters that a request sets without effect, from their declarations and the model.

What depends on more than that, such as a scale that leaves guidance out, is told by the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from multimodal_gen.configs.parameter_spec import Need
from multimodal_gen.configs.sampling_params import PARAMETERS, SamplingParams
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.pictures import Pictures
from multimodal_gen.messages.request_warning import RequestWarning

_SHOWN = ("image", "last_image", "video")


def without_effect(
    params: SamplingParams, model: ModelInfo, pictures: Pictures
) -> Iterator[RequestWarning]:
    """Warn of each parameter that the request sets in vain; those of the model's own value change
    nothing anyway."""
    for name in _idle(params, model, pictures):
        text = f"{name} has no effect{_reason(name, model, pictures)}"
        yield RequestWarning("no_effect", name, text)
    for name in ("lora", "control"):
        for choice in getattr(params, name):
            if choice.scale == 0:
                text = f"{name}={choice.name!r} has no effect: its scale is 0"
                yield RequestWarning("no_effect", name, text)


def effective(params: SamplingParams, model: ModelInfo, pictures: Pictures) -> SamplingParams:
    """Unset what has no effect, so that results don't claim it. Raises InvalidRequest for a value
    that no model allows there."""
    idle = [*_idle(params, model, pictures)]
    for name in idle:
        PARAMETERS[name].check_value(getattr(params, name), model)
    return replace(params, **{name: PARAMETERS[name].default for name in idle})


def _idle(params: SamplingParams, model: ModelInfo, pictures: Pictures) -> Iterator[str]:
    for name, parameter in PARAMETERS.items():
        value = getattr(params, name)
        own = (None, parameter.default, getattr(model.defaults, name, None))
        if value not in own and _reason(name, model, pictures):
            yield name


def _reason(name: str, model: ModelInfo, pictures: Pictures) -> str:
    """End of a sentence that says why the parameter has no effect; empty if it has one, or is
    refused."""
    if name in model.no_effect:
        if name == "guidance_scale" and "true_cfg_scale" in model.parameters:
            return ": this model is guided by true_cfg_scale"
        return _REASONS.get(name, ": this model does not use it")
    spec = PARAMETERS[name].spec
    if "parameter" in spec.needs and name not in model.parameters:
        return ""
    return next((why for need in spec.needs if (why := _lacks(need, pictures))), "")


_REASONS = {
    "negative_prompt": ": this model has no guidance",
    "strength": ": this model does not start from images",
}


def _lacks(need: Need, pictures: Pictures) -> str:
    """Name the input that the request lacks, as a sentence's end; empty if it has it."""
    if need == "image" and not any(name in pictures for name in _SHOWN):
        return " without an input image"
    if need == "mask" and "mask" not in pictures:
        return " without a mask"
    return ""
