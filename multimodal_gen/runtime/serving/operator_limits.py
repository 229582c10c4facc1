"""Bounds that the operator sets below those of the model."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.messages.model_info import ModelInfo

_NAMES = ("max_pixels", "max_frames", "max_steps")


def bounded(model: ModelInfo, args: ServerArgs) -> ModelInfo:
    """`model` with the smaller of both bounds. Its defaults fit, unless the operator's do not."""
    given = {name: getattr(args, name) for name in _NAMES if getattr(args, name) is not None}
    lower = {name: min(value, getattr(model.limits, name)) for name, value in given.items()}
    return msgspec.structs.replace(model, limits=msgspec.structs.replace(model.limits, **lower))


def within_time(params: SamplingParams, args: ServerArgs) -> SamplingParams:
    """`params` with a deadline no later than the operator's."""
    if args.max_request_s is None:
        return params
    asked = args.max_request_s if params.deadline_s is None else params.deadline_s
    return replace(params, deadline_s=min(asked, args.max_request_s))
