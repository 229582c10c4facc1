"""Refuses requests of which one evaluation would keep everyone waiting.

Between two evaluations anything can happen: others go first, a client leaves, a deadline passes.
Within one, nothing can.
"""

from __future__ import annotations

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.second_pass import naming_upscale, second_pass
from multimodal_gen.messages.checks.fitting_sizes import latent_frames, too_large
from multimodal_gen.messages.evaluation_costs import EvaluationCosts
from multimodal_gen.messages.model_info import ModelInfo

DEFAULT_S = 30.0
"""Limit where several clients share the engine, or a GPU makes longer evaluations a mistake."""


def check_evaluation(
    params: SamplingParams, model: ModelInfo, costs: EvaluationCosts, limit_s: float
) -> None:
    """Raise InvalidRequest, with what would fit, if one evaluation of these resolved parameters is
    predicted to take more than `limit_s`."""
    second = second_pass(params, model.size_multiple)
    if second is not None:
        with naming_upscale(params):
            check_evaluation(second, model, costs, limit_s)
    frame = max(1, (params.width or 0) * (params.height or 0) // model.size_multiple**2)
    tokens = frame * latent_frames(params, model)
    seconds = costs.seconds(tokens)
    if seconds > limit_s:
        why = f"one evaluation would take about {seconds:.0f} s, during which no other request runs"
        part = costs.tokens(limit_s) / tokens
        raise too_large(params, model, part, why, f"max_evaluation_s={limit_s:g}")
