"""Sizes that fit where what was asked for does not."""

from __future__ import annotations

import math

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import ModelInfo


def latent_frames(params: SamplingParams, model: ModelInfo) -> int:
    return ((params.num_frames or 1) - 1) // model.frame_multiple + 1


def fitting_frames(model: ModelInfo, most: int) -> int:
    """The largest number of frames that the model makes, up to `most`; never less than its
    smallest."""
    least = model.limits.min_frames
    return least + max(0, most - least) // model.frame_multiple * model.frame_multiple


def fitting_size(params: SamplingParams, model: ModelInfo, part: float) -> str:
    """The largest size of the same shape, with this part of the pixels."""
    assert params.width is not None
    assert params.height is not None
    scale, multiple = math.sqrt(part), model.size_multiple
    sides = (
        max(1, int(side * scale) // multiple) * multiple for side in (params.width, params.height)
    )
    return "x".join(map(str, sides))


def too_large(
    params: SamplingParams, model: ModelInfo, most: float, why: str, limit: str
) -> InvalidRequest:
    """An error that says what fits. `most` is the allowed part of what was asked for, `limit` what
    allows no more."""
    size, frames = f"{params.width}x{params.height}", latent_frames(params, model)
    fits = f"{limit} allows about {fitting_size(params, model, most)}"
    fewer = int(most * frames)
    if frames == 1 or fewer < 1:
        return InvalidRequest("size", size, f"{why}; {fits}")
    shorter = fitting_frames(model, (fewer - 1) * model.frame_multiple + 1)
    fits += f" with so many frames, or {shorter} frames of this size"
    return InvalidRequest("num_frames", params.num_frames, f"{why}; {fits}")
