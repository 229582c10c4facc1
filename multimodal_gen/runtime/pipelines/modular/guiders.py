"""Guiders of the library, as a request asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers.guiders.adaptive_projected_guidance import AdaptiveProjectedGuidance
from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance
from diffusers.guiders.classifier_free_zero_star_guidance import ClassifierFreeZeroStarGuidance
from diffusers.guiders.guider_utils import BaseGuidance

from multimodal_gen.configs.sampling.guidance import (
    GUIDANCE_PARAMETERS,
    OF_APG,
    GuidanceMethod,
)
from multimodal_gen.configs.sampling_params import PARAMETERS, SamplingParams

_KINDS: Mapping[GuidanceMethod, type[BaseGuidance]] = {
    "cfg": ClassifierFreeGuidance,
    "cfg_zero": ClassifierFreeZeroStarGuidance,
    "apg": AdaptiveProjectedGuidance,
}
_NAMES: Mapping[str, str] = {
    "guidance_start": "start",
    "guidance_stop": "stop",
    "guidance_rescale": "guidance_rescale",
    "zero_init_steps": "zero_init_steps",
    "apg_eta": "eta",
    "apg_norm": "adaptive_projected_guidance_rescale",
    "apg_momentum": "adaptive_projected_guidance_momentum",
}
"""Sampling parameters, with their names in the configs of guiders."""


def guider_parameters(guider: BaseGuidance | None) -> tuple[str, ...]:
    """Sampling parameters that a guider takes, beside its scale: all of those that the methods
    have, if it is of classifier-free guidance, which others can stand for."""
    return GUIDANCE_PARAMETERS if type(guider) is ClassifierFreeGuidance else ()


def own_guider(guider: BaseGuidance, scale: float | None, params: SamplingParams) -> BaseGuidance:
    """Make a guider for one request, with the checkpoint's settings for what it leaves open."""
    own: Any = guider
    changes: dict[str, Any] = {} if scale is None else {"guidance_scale": scale}
    if guider_parameters(guider):
        own = _KINDS[params.guidance_method].from_config(guider.config)
        changes |= {_NAMES[name]: getattr(params, name) for name in _NAMES if _says(params, name)}
    made: BaseGuidance = own.new(**{k: value for k, value in changes.items() if k in own.config})
    return made


def _says(params: SamplingParams, name: str) -> bool:
    return name in OF_APG or getattr(params, name) != PARAMETERS[name].default
