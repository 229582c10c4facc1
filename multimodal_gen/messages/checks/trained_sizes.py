"""Checks of sizes against those that a checkpoint says it was trained for.

Only the first pass of a request has to be of such a size: a second one of low strength goes on from
a picture, and draws little.
"""

from __future__ import annotations

from collections.abc import Iterator

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.request_warning import RequestWarning


def check_drawable(side: str, pixels: int, model: ModelInfo) -> None:
    """Raise InvalidRequest for a width or height that is larger than the model can draw."""
    most = model.limits.largest_side
    if most is not None and pixels > most:
        usual = f"{model.defaults.width}x{model.defaults.height} if no size is given"
        raise InvalidRequest(side, pixels, f"must be at most {most}: {_drawn(model)} ({usual})")


def check_shape(resolved: SamplingParams, model: ModelInfo) -> None:
    """Raise InvalidRequest for a picture that is longer or higher than the model can draw."""
    most, width, height = model.limits.largest_aspect, resolved.width, resolved.height
    if most is None or not width or not height:
        return
    if max(width, height) > most * min(width, height):
        allowed = f"{model.name} draws shapes of at most {most:g} to 1"
        raise InvalidRequest("size", f"{width}x{height}", allowed)


def small_sides(params: SamplingParams, model: ModelInfo) -> Iterator[RequestWarning]:
    """Warn of a width or height that is smaller than the model was trained for."""
    least = model.limits.smallest_side
    for side in ("width", "height"):
        pixels = getattr(params, side)
        if least is not None and pixels is not None and pixels < least:
            yield RequestWarning("small_size", side, f"{side}={pixels}: {_drawn(model)}")
            return


def large_second_pass(
    params: SamplingParams, model: ModelInfo, size: tuple[int, int]
) -> Iterator[RequestWarning]:
    """Warn of a second pass that is larger than the model can draw; `size` is the first one's."""
    most, choice = model.limits.largest_side, params.upscale
    if most is None or choice is None or choice.strength is None:
        return
    width, height = (round(side * choice.factor) for side in size)
    if max(width, height) > most:
        what = f"upscale={choice}: {width}x{height} in the second pass: {_drawn(model)}"
        yield RequestWarning("large_size", "upscale", f"{what}; keep its strength low")


def _drawn(model: ModelInfo) -> str:
    limits = model.limits
    least, most = limits.smallest_side, limits.largest_side
    if least is None:
        return f"{model.name} draws up to {most}x{most} pixels"
    if most is None:
        return f"{model.name} was trained for {least}x{least} pixels and more"
    return f"{model.name} draws {least}x{least} to {most}x{most} pixels"
