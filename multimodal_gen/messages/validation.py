"""The one check of what is asked against what the model allows. Pure, and the same for a client,
which uses it to answer at once, and for rank 0, which can't trust a client."""

from __future__ import annotations

import math
import secrets
from dataclasses import replace
from types import MappingProxyType

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import Defaults, ModelInfo
from multimodal_gen.messages.pictures import Pictures, check_pictures, output_size, strength_of
from multimodal_gen.messages.request import Req

MAX_SEED = 2**63 - 1
MAX_LORA_SCALE = 100
_OPTIONAL = (
    "num_frames",
    "fps",
    "guidance_scale_2",
    "true_cfg_scale",
    "flow_shift",
    "max_sequence_length",
    "lora",
)
"""Parameters that not every model knows. (guidance_scale and negative_prompt are taken by every
model, and are without effect where the checkpoint was distilled to need none.)"""


_FILLED = tuple(
    name
    for name in Defaults.__struct_fields__
    if name not in ("width", "height", "strength", "inpainting_strength")
)
"""Where a request says nothing, these are the model's defaults whatever else it says."""
NO_PICTURES: Pictures = MappingProxyType({})


def resolve(
    params: SamplingParams, model: ModelInfo, pictures: Pictures = NO_PICTURES
) -> SamplingParams:
    """Check `params` and fill in the model's defaults. Raises InvalidRequest."""
    _check_known(params, model)
    check_pictures(params, model, pictures)
    filled = {
        name: getattr(model.defaults, name) for name in _FILLED if getattr(params, name) is None
    }
    if params.guidance_scale is not None:
        filled.pop("guidance_scale_2", None)  # its default goes with the other's
    filled["width"], filled["height"] = output_size(params, model, pictures)
    if params.strength is None:
        filled["strength"] = strength_of(model, pictures)
    if params.seed is None:
        filled["seed"] = secrets.randbelow(2**32)
    if params.scheduler is None and model.schedulers:
        filled["scheduler"] = model.schedulers[0]
    resolved = replace(params, **filled)
    validate(resolved, model, pictures)
    return resolved


def requests_of(
    params: SamplingParams,
    model: ModelInfo,
    pictures: Pictures = NO_PICTURES,
    *,
    previews: bool = False,
) -> list[Req]:
    """`resolve` and `outputs_of` in one. Raises InvalidRequest."""
    return outputs_of(resolve(params, model, pictures), pictures, previews=previews)


def outputs_of(
    resolved: SamplingParams, pictures: Pictures = NO_PICTURES, *, previews: bool = False
) -> list[Req]:
    """One Req per output, seeds `seed`, `seed + 1`, …, ids fresh."""
    assert resolved.seed is not None
    return [
        Req(
            id=secrets.token_hex(16),
            params=replace(resolved, seed=resolved.seed + j, num_outputs_per_prompt=1),
            previews=previews,
            pictures=dict(pictures),
        )
        for j in range(resolved.num_outputs_per_prompt)
    ]


def validate(params: SamplingParams, model: ModelInfo, pictures: Pictures = NO_PICTURES) -> None:
    """Check parameters whose defaults are filled in. Raises InvalidRequest."""
    _check_known(params, model)
    check_pictures(params, model, pictures)
    limits = model.limits
    _check_prompt("prompt", params.prompt, model)
    if params.negative_prompt is not None:
        _check_prompt("negative_prompt", params.negative_prompt, model)
    _check_size(params, model)
    _check_frames(params, model)
    _check_range("num_inference_steps", params.num_inference_steps, 1, limits.max_steps)
    _check_range("num_outputs_per_prompt", params.num_outputs_per_prompt, 1, limits.max_outputs)
    _check_range("seed", params.seed, 0, MAX_SEED - limits.max_outputs)
    for name in ("guidance_scale", "guidance_scale_2", "true_cfg_scale"):
        _check_number(name, getattr(params, name), 0, 100)
    _check_number("flow_shift", params.flow_shift, 0.01, 100)
    _check_number("deadline_s", params.deadline_s, 0.001, 30 * 86400)
    if params.max_sequence_length is not None:
        _check_range(
            "max_sequence_length", params.max_sequence_length, 1, limits.max_sequence_length or 1
        )
    _check_loras(params, model)
    if params.scheduler is not None and params.scheduler not in model.schedulers:
        allowed = f"this model allows {', '.join(model.schedulers)}"
        raise InvalidRequest("scheduler", params.scheduler, allowed)


def _check_known(params: SamplingParams, model: ModelInfo) -> None:
    for name in _OPTIONAL:
        value = getattr(params, name)
        unset = value is None or value == ()
        if unset or name in model.parameters or value == getattr(model.defaults, name, None):
            continue
        known = ", ".join(model.parameters) or "none"
        allowed = f"{model.family} ({', '.join(model.tasks)}) has no such parameter; it has {known}"
        raise InvalidRequest(name, value, allowed)


def _check_loras(params: SamplingParams, model: ModelInfo) -> None:
    names = [choice.name for choice in params.lora]
    if len(names) > model.limits.max_loras:
        allowed = f"must be at most {model.limits.max_loras}"
        raise InvalidRequest("lora", names, allowed)
    for choice in params.lora:
        if names.count(choice.name) > 1:
            raise InvalidRequest("lora", choice.name, "is named twice")
        if not math.isfinite(choice.scale) or abs(choice.scale) > MAX_LORA_SCALE:
            allowed = f"scale must be {-MAX_LORA_SCALE} to {MAX_LORA_SCALE}"
            raise InvalidRequest("lora", f"{choice.name}:{choice.scale}", allowed)


def _check_prompt(name: str, text: str, model: ModelInfo) -> None:
    if len(text) > model.limits.max_prompt_characters:
        allowed = f"must have at most {model.limits.max_prompt_characters} characters"
        raise InvalidRequest(name, text, allowed)
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise InvalidRequest(name, text, "must be valid Unicode")


def _check_size(params: SamplingParams, model: ModelInfo) -> None:
    limits, multiple = model.limits, model.size_multiple
    for name in ("width", "height"):
        side = getattr(params, name)
        _check_range(name, side, multiple, limits.max_side)
        if side % multiple:
            lower = side // multiple * multiple
            near = f"{lower} or {lower + multiple} are the nearest" if lower else f"try {multiple}"
            raise InvalidRequest(name, side, f"must be a multiple of {multiple}; {near}")
    assert params.width is not None
    assert params.height is not None
    if params.width * params.height > limits.max_pixels:
        size = f"{params.width}x{params.height}"
        allowed = f"width times height must be at most {limits.max_pixels} pixels"
        raise InvalidRequest("size", size, allowed)


def _check_frames(params: SamplingParams, model: ModelInfo) -> None:
    _check_range("num_frames", params.num_frames, 1, model.limits.max_frames)
    assert params.num_frames is not None
    if (params.num_frames - 1) % model.frame_multiple:
        allowed = f"must be 1 more than a multiple of {model.frame_multiple}"
        raise InvalidRequest("num_frames", params.num_frames, allowed)
    if params.fps is not None:
        _check_range("fps", params.fps, 1, 240)


def _check_range(name: str, value: int | None, low: int, high: int) -> None:
    if value is None or not low <= value <= high:
        raise InvalidRequest(name, value, f"must be {low} to {high}")


def _check_number(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not (math.isfinite(value) and low <= value <= high):
        raise InvalidRequest(name, value, f"must be {low} to {high}")
