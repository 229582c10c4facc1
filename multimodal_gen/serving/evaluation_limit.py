"""Refuses requests of which one evaluation would keep everyone waiting.

Between two evaluations anything can happen: others go first, a client leaves, a deadline passes.
Within one, nothing can.
"""

from __future__ import annotations

import math

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.evaluation_costs import EvaluationCosts
from multimodal_gen.messages.model_info import ModelInfo

DEFAULT_S = 30.0
"""Limit where several clients share the engine, or a GPU makes longer evaluations a mistake."""


def check_evaluation(
    params: SamplingParams, model: ModelInfo, costs: EvaluationCosts, limit_s: float
) -> None:
    """Raise InvalidRequest, with what would fit, if one evaluation of these resolved parameters is
    predicted to take more than `limit_s`."""
    width, height = params.width or 0, params.height or 0
    frame, latent_frames = _frame_tokens(params, model), _latent_frames(params, model)
    seconds = costs.seconds(frame * latent_frames)
    if seconds <= limit_s:
        return
    most = costs.tokens(limit_s)
    why = f"one evaluation would take about {seconds:.0f} s, during which no other request runs"
    size = _fitting_size(width, height, most / (frame * latent_frames), model.size_multiple)
    fits = f"max_evaluation_s={limit_s:g} allows about {size}"
    if latent_frames == 1 or most < frame:
        raise InvalidRequest("size", f"{width}x{height}", f"{why}; {fits}")
    frames = (most // frame - 1) * model.frame_multiple + 1
    fits += f" with so many frames, or {frames} frames of this size"
    raise InvalidRequest("num_frames", params.num_frames, f"{why}; {fits}")


def _frame_tokens(params: SamplingParams, model: ModelInfo) -> int:
    """Tokens of a frame: models take sizes in units of a token."""
    return max(1, (params.width or 0) * (params.height or 0) // model.size_multiple**2)


def _latent_frames(params: SamplingParams, model: ModelInfo) -> int:
    return ((params.num_frames or 1) - 1) // model.frame_multiple + 1


def _fitting_size(width: int, height: int, part: float, multiple: int) -> str:
    """The largest size of the same shape, with this part of the pixels."""
    scale = math.sqrt(part)
    sides = (max(1, int(side * scale) // multiple) * multiple for side in (width, height))
    return "x".join(map(str, sides))
