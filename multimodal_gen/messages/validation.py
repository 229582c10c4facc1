"""Validates requests against the model's limits. Pure, and shared: a client uses it to refuse bad
requests early, rank 0 because it can't trust clients."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.lora.contracts import contract_of
from multimodal_gen.configs.sampling_params import PARAMETERS, SamplingParams
from multimodal_gen.configs.second_pass import enlarged_by_model, naming_upscale, second_pass
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.checks.fitting_sizes import fitting_size, latent_frames, too_large
from multimodal_gen.messages.checks.no_effect import effective, without_effect
from multimodal_gen.messages.checks.schedule import check_schedule
from multimodal_gen.messages.checks.trained_sizes import (
    check_drawable,
    check_shape,
    large_second_pass,
    small_sides,
)
from multimodal_gen.messages.codec import FrameHeader
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.pictures import (
    Pictures,
    check_pictures,
    controls_of,
    output_frames,
    output_size,
    strength_of,
)
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.request_warning import RequestWarning

MAX_LORA_SCALE = 100
MAX_CONTROL_SCALE = 100
RANDOM_SEED = -1
"""Means a random seed, as None does: a convention of many clients."""
_OPTIONAL = tuple(name for name, each in PARAMETERS.items() if "parameter" in each.spec.needs)
"""Parameters that not every model supports."""
_MODEL_DEFAULTS = tuple(name for name, each in PARAMETERS.items() if each.spec.model_default)
NO_PICTURES: Pictures = MappingProxyType({})
_OF_SIGMAS = ("num_inference_steps", "flow_shift", "timestep_spacing", "scheduler")
"""Parameters that a request's own noise levels stand for."""


def resolve(
    params: SamplingParams, model: ModelInfo, pictures: Pictures = NO_PICTURES
) -> SamplingParams:
    """Check `params` and fill in the defaults of its LoRAs and of the model. Raises
    InvalidRequest."""
    params = with_lora_defaults(effective(params, model, pictures), model)
    _check_known(params, model)
    check_pictures(params, model, pictures)
    for side in ("width", "height"):  # the other may follow from it
        if getattr(params, side) is not None:
            PARAMETERS[side].check_value(getattr(params, side), model)
            check_drawable(side, getattr(params, side), model)
    filled = _model_defaults(params, model)
    filled["width"], filled["height"] = output_size(params, model, pictures)
    filled["num_frames"] = output_frames(params, model, pictures)
    if "strength" in filled:
        filled["strength"] = strength_of(model, pictures)
    if params.num_inference_steps is None and params.sigmas:
        filled["num_inference_steps"] = len(params.levels)
    if params.seed in (None, RANDOM_SEED):
        filled["seed"] = secrets.randbelow(2**32)
    if params.scheduler is None and model.schedulers:
        filled["scheduler"] = model.schedulers[0]
    resolved = replace(params, **filled)
    check_shape(resolved, model)
    validate(resolved, model, pictures)
    return resolved


def _model_defaults(params: SamplingParams, model: ModelInfo) -> dict[str, Any]:
    """Return the model's defaults for fields that `params` leaves unset."""
    unset = [
        name
        for name in _MODEL_DEFAULTS
        if getattr(params, name) is None and name not in model.no_effect
    ]
    if params.guidance_scale is not None and "guidance_scale_2" in unset:
        unset.remove("guidance_scale_2")  # its default goes with the other's
    return {name: getattr(model.defaults, name) for name in unset}


def with_lora_defaults(
    params: SamplingParams, model: ModelInfo, titles: Mapping[str, Sequence[str]] | None = None
) -> SamplingParams:
    """Fill in what the request leaves open and the model supports; its first LoRA comes first.

    `titles` are further names of its LoRAs, from the metadata of their files.
    """
    found: dict[str, Any] = {}
    for choice in params.lora:
        contract = contract_of(choice.name, *(titles or {}).get(choice.name, ()))
        if contract is not None and choice.scale:
            found = {**contract.parameters, **found}
    if params.sigmas:
        found = {name: found[name] for name in found if name not in _OF_SIGMAS}
    if any(getattr(params, name) is not None for name in _OF_SIGMAS):
        found.pop("sigmas", None)
    unset = {
        name: value
        for name, value in found.items()
        if getattr(params, name) in (None, ()) and _supports(model, name, value)
    }
    return replace(params, **unset) if unset else params


def _supports(model: ModelInfo, name: str, value: object) -> bool:
    if name == "scheduler":
        return value in model.schedulers
    if name in model.no_effect:
        return False
    return "parameter" not in PARAMETERS[name].spec.needs or name in model.parameters


def requests_of(
    params: SamplingParams,
    model: ModelInfo,
    pictures: Pictures = NO_PICTURES,
    *,
    previews: bool = False,
) -> list[Req]:
    """Combine `resolve`, `warnings_about` and `outputs_of`. Raises InvalidRequest."""
    resolved = resolve(params, model, pictures)
    told = warnings_about(params, model, pictures)
    return outputs_of(resolved, pictures, told, previews=previews)


def warnings_about(
    params: SamplingParams, model: ModelInfo, pictures: Pictures = NO_PICTURES
) -> tuple[RequestWarning, ...]:
    """Return what the client can tell about parameters before `resolve` fills in defaults."""
    size = output_size(params, model, pictures)
    return (
        *without_effect(params, model, pictures),
        *small_sides(params, model),
        *large_second_pass(params, model, size),
    )


def outputs_of(
    resolved: SamplingParams,
    pictures: Pictures = NO_PICTURES,
    warnings: tuple[RequestWarning, ...] = (),
    *,
    previews: bool = False,
) -> list[Req]:
    """Build one Req per output, with seeds `seed`, `seed + 1`, … and fresh ids."""
    assert resolved.seed is not None
    return [
        Req(
            id=secrets.token_hex(16),
            params=replace(resolved, seed=resolved.seed + j, num_outputs_per_prompt=1),
            previews=previews,
            pictures=dict(pictures),
            warnings=warnings,
        )
        for j in range(resolved.num_outputs_per_prompt)
    ]


def validate(params: SamplingParams, model: ModelInfo, pictures: Pictures = NO_PICTURES) -> None:
    """Check parameters whose defaults are already filled in. Raises InvalidRequest."""
    _check_known(params, model)
    check_pictures(params, model, pictures)
    _check_filled(params, model, pictures)
    _check_prompt("prompt", params.prompt, model)
    if params.negative_prompt is not None:
        _check_prompt("negative_prompt", params.negative_prompt, model)
    for name, parameter in PARAMETERS.items():
        parameter.check_value(getattr(params, name), model)
    check_schedule(params, model)
    _check_interval(params)
    _check_pixels(params, model)
    _check_loras(params, model)
    _check_controls(params.control)
    _check_second_pass(params, model, pictures)


def _check_second_pass(params: SamplingParams, model: ModelInfo, pictures: Pictures) -> None:
    """The second pass starts from an image as large as the first."""
    _check_enlarging(params, model)
    second = second_pass(params, model.size_multiple)
    if second is None:
        return
    if "latents" in model.upscale_ways:
        _check_from_latents(params, second, model, pictures)
        return
    if "second-pass" not in model.upscale_ways:
        allowed = f"a second pass (strength) is not supported by {model.family}, only a model"
        raise InvalidRequest("upscale", str(params.upscale), allowed)
    if "mask" in pictures:
        raise InvalidRequest("mask_path", "a mask", "can't be combined with upscale")
    assert params.width is not None
    assert params.height is not None
    with naming_upscale(params):
        image = FrameHeader((params.height, params.width, 3))
        validate(second, model, {"image": image, **controls_of(pictures)})


def _check_from_latents(
    params: SamplingParams, second: SamplingParams, model: ModelInfo, pictures: Pictures
) -> None:
    """Check a second pass that starts from enlarged latents."""
    choice = params.upscale
    assert choice is not None
    if pictures:
        raise InvalidRequest("upscale", str(choice), "can't be combined with pictures, here")
    if choice.strength is not None and not 0 < choice.strength <= 1:
        raise InvalidRequest("upscale", str(choice), "strength must be more than 0, at most 1")
    with naming_upscale(params):
        validate(replace(second, strength=None), model, pictures)


def _check_enlarging(params: SamplingParams, model: ModelInfo) -> None:
    """Refuse a model where there are none, and results larger than any that may be asked for."""
    enlarged, choice = enlarged_by_model(params), params.upscale
    if enlarged is None or choice is None or choice.model is None:
        return
    _check_text("upscale", choice.model)
    if "model" not in model.upscale_ways:
        raise InvalidRequest("upscale", choice.model, "the server was started without upscaler_dir")
    with naming_upscale(params, "its result"):
        for side in ("width", "height"):
            most = model.limits.max_side
            if getattr(enlarged, side) > most:
                raise InvalidRequest(side, getattr(enlarged, side), f"must be at most {most}")
        _check_frame(enlarged, model)


def _check_filled(params: SamplingParams, model: ModelInfo, pictures: Pictures) -> None:
    """Raise InvalidRequest for a field that is None although the model has a default for it."""
    for name, default in _model_defaults(params, model).items():
        if (strength_of(model, pictures) if name == "strength" else default) is not None:
            raise InvalidRequest(name, None, "must have a value: the client fills in defaults")


def check_offered(params: SamplingParams, engine: EngineArgs) -> None:
    """Raise InvalidRequest for a parameter that needs an argument that the engine lacks."""
    for name, parameter in PARAMETERS.items():
        value, option = getattr(params, name), parameter.spec.option
        if option and value != parameter.default and getattr(engine, option) is None:
            raise _not_offered(name, value)


def _not_offered(name: str, value: object) -> InvalidRequest:
    option = PARAMETERS[name].spec.option.replace("_", "-")
    return InvalidRequest(name, value, f"needs the server's option --{option}")


def _check_known(params: SamplingParams, model: ModelInfo) -> None:
    for name in _OPTIONAL:
        value = getattr(params, name)
        unset = value is None or value == PARAMETERS[name].default
        if unset or name in model.parameters or value == getattr(model.defaults, name, None):
            continue
        if PARAMETERS[name].spec.option:
            raise _not_offered(name, value)
        if "video" in PARAMETERS[name].spec.needs and not model.makes_videos:
            raise InvalidRequest(name, value, "this model makes pictures, not videos")
        known = ", ".join(model.parameters) or "none"
        allowed = f"not supported by {model.family} ({', '.join(model.tasks)}); supported: {known}"
        raise InvalidRequest(name, value, allowed)


def _check_interval(params: SamplingParams) -> None:
    start, stop = params.guidance_start, params.guidance_stop
    if not start < stop:
        raise InvalidRequest("guidance_stop", stop, f"must be more than guidance_start={start}")
    zeros, steps = params.zero_init_steps, params.num_inference_steps
    if zeros is not None and steps is not None and zeros >= steps:  # it would be pure noise
        raise InvalidRequest("zero_init_steps", zeros, f"must be less than {steps} steps")


def _check_loras(params: SamplingParams, model: ModelInfo) -> None:
    places = [(choice.name, choice.target) for choice in params.lora]
    if len(places) > model.limits.max_loras:
        allowed = f"must be at most {model.limits.max_loras}"
        raise InvalidRequest("lora", [name for name, _ in places], allowed)
    _check_spans(params.lora)
    for choice in params.lora:
        _check_text("lora", choice.name)
        if choice.target is not None and choice.target not in model.lora_targets:
            allowed = f"target must be {' or '.join(model.lora_targets) or 'left out'}"
            raise InvalidRequest("lora", choice.target, allowed)
        if not -MAX_LORA_SCALE <= choice.scale <= MAX_LORA_SCALE:  # nor is it NaN
            allowed = f"scale must be {-MAX_LORA_SCALE} to {MAX_LORA_SCALE}"
            raise InvalidRequest("lora", str(choice), allowed)


def _check_spans(choices: Sequence[LoraChoice]) -> None:
    """Raise InvalidRequest for a LoRA that applies twice to a step of one target."""
    ends: dict[tuple[str, str | None], float] = {}
    for choice in sorted(choices, key=lambda choice: choice.start):
        if not 0 <= choice.start < choice.stop <= 1:  # nor is one NaN
            span = f"{choice.start}-{choice.stop}"
            raise InvalidRequest("lora", span, "must be 0 <= start < stop <= 1")
        place = choice.name, choice.target
        if choice.start < ends.get(place, 0.0):
            raise InvalidRequest("lora", choice.name, "is given twice for the same steps")
        ends[place] = choice.stop


def _check_controls(choices: Sequence[ControlChoice]) -> None:
    for choice in choices:
        _check_text("control", choice.name)
        if not 0 <= choice.scale <= MAX_CONTROL_SCALE:  # nor is it NaN
            allowed = f"scale must be 0 to {MAX_CONTROL_SCALE}"
            raise InvalidRequest("control", str(choice), allowed)
        if not 0 <= choice.start < choice.stop <= 1:
            allowed = "must be 0 <= start < stop <= 1"
            raise InvalidRequest("control", f"{choice.start}-{choice.stop}", allowed)


def _check_prompt(name: str, text: str, model: ModelInfo) -> None:
    if len(text) > model.limits.max_prompt_characters:
        allowed = f"must have at most {model.limits.max_prompt_characters} characters"
        raise InvalidRequest(name, text, allowed)
    _check_text(name, text)


def _check_text(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(name, text, "must be valid Unicode") from None
    if "\0" in text:
        raise InvalidRequest(name, text, "must not contain NUL")


def _check_pixels(params: SamplingParams, model: ModelInfo) -> None:
    assert params.width is not None
    assert params.height is not None
    _check_frame(params, model)
    volume = params.width * params.height * latent_frames(params, model)
    fitting = model.limits.max_volume
    if fitting is not None and volume > fitting:
        raise too_large(params, model, fitting / volume, "does not fit into memory", "memory")


def _check_frame(params: SamplingParams, model: ModelInfo) -> None:
    assert params.width is not None
    assert params.height is not None
    most, pixels = model.limits.max_pixels, params.width * params.height
    if pixels > most:
        size, fits = f"{params.width}x{params.height}", fitting_size(params, model, most / pixels)
        allowed = f"width times height must be at most {most} pixels, such as {fits}"
        raise InvalidRequest("size", size, allowed)
