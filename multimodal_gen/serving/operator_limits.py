"""Limits that the operator sets below those of the model."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec

from multimodal_gen.configs.arguments.limit_args import LimitArgs
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.step_cache import at_least
from multimodal_gen.messages.checks.fitting_sizes import fitting_frames
from multimodal_gen.messages.model_info import Defaults, Limits, ModelInfo

_NAMES = ("max_pixels", "max_frames", "max_steps")


def bounded(model: ModelInfo, args: LimitArgs) -> ModelInfo:
    """`model` with the smaller of both bounds, and with defaults within them."""
    given = {name: getattr(args, name) for name in _NAMES if getattr(args, name) is not None}
    lower = {name: min(value, getattr(model.limits, name)) for name, value in given.items()}
    limits = msgspec.structs.replace(model.limits, **lower)
    return msgspec.structs.replace(
        model,
        limits=limits,
        defaults=_fitting(model, limits),
        qualities=tuple(each for each in model.qualities if each in at_least(args.min_quality)),
    )


def _fitting(model: ModelInfo, limits: Limits) -> Defaults:
    """Reduce the model's defaults where a request that relies on them would be refused."""
    given = model.defaults
    width, height, area = given.width, given.height, given.width * given.height
    if area > limits.max_pixels:
        width, height = (
            max(1, math.isqrt(side**2 * limits.max_pixels // area) // model.size_multiple)
            * model.size_multiple
            for side in (width, height)
        )
    return msgspec.structs.replace(
        given,
        width=width,
        height=height,
        num_frames=min(given.num_frames, fitting_frames(model, limits.max_frames)),
        num_inference_steps=min(given.num_inference_steps, limits.max_steps),
    )


def within_time(params: SamplingParams, args: LimitArgs) -> SamplingParams:
    """`params` with a deadline no later than the operator's."""
    if args.max_request_s is None:
        return params
    asked = args.max_request_s if params.deadline_s is None else params.deadline_s
    return replace(params, deadline_s=min(asked, args.max_request_s))
