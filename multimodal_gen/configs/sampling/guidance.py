"""Parameters of guidance: how closely the output follows the prompt.

Methods: cfg, classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598); cfg_zero, with the
negative prediction scaled to the positive one, and the first steps left out (Fan et al. 2025,
arXiv:2503.18886); apg, without what only lengthens the positive prediction (Sadat et al. 2024,
arXiv:2410.02416).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from multimodal_gen.configs.parameter_spec import ParameterSpec

GuidanceMethod = Literal["cfg", "cfg_zero", "apg"]
INTERVAL = ("guidance_start", "guidance_stop")
OF_APG = ("apg_eta", "apg_norm", "apg_momentum")
OF_METHODS = ("guidance_method", "zero_init_steps", *OF_APG)
GUIDANCE_PARAMETERS = (*INTERVAL, "guidance_rescale", *OF_METHODS)
"""Optional parameters of all families with a positive and a negative branch."""


@dataclass(frozen=True, kw_only=True)
class GuidanceParameters:
    """Declares scales of guidance, and what they are applied to."""

    guidance_scale: Annotated[
        float | None,
        ParameterSpec(
            help="Higher follows the prompt more closely",
            lowest=0,
            highest=100,
            needs=("guidance",),
            model_default=True,
            fallback=1.0,
        ),
    ] = None
    guidance_scale_2: Annotated[
        float | None,
        ParameterSpec(
            help="Guidance scale of the second of two experts",
            lowest=0,
            highest=100,
            needs=("parameter", "video"),
            default="guidance_scale if that is given, otherwise the model's",
            model_default=True,
        ),
    ] = None
    true_cfg_scale: Annotated[
        float | None,
        ParameterSpec(
            help="CFG scale of models that embed guidance_scale",
            lowest=0,
            highest=100,
            needs=("parameter",),
            model_default=True,
        ),
    ] = None
    audio_guidance_scale: Annotated[
        float | None,
        ParameterSpec(
            help="guidance_scale of the sound",
            lowest=0,
            highest=100,
            needs=("parameter",),
            default="the model's, or guidance_scale",
            model_default=True,
        ),
    ] = None
    stg_scale: Annotated[
        float | None,
        ParameterSpec(
            help="Guidance away from a skipped attention; 0: none",
            lowest=0,
            highest=100,
            needs=("parameter",),
            model_default=True,
        ),
    ] = None
    modality_scale: Annotated[
        float | None,
        ParameterSpec(
            help="Guidance away from video and sound made apart; 1: none",
            lowest=0,
            highest=100,
            needs=("parameter",),
            model_default=True,
        ),
    ] = None
    guidance_rescale: Annotated[
        float | None,
        ParameterSpec(
            help="Scales guided values back to their unguided spread",
            lowest=0,
            highest=1,
            needs=("parameter",),
            model_default=True,
        ),
    ] = None
    guidance_start: Annotated[
        float,
        ParameterSpec(
            help="Share of steps before guidance",
            lowest=0,
            highest=1,
            needs=("parameter",),
        ),
    ] = 0.0
    guidance_stop: Annotated[
        float,
        ParameterSpec(
            help="Share of steps where guidance ends",
            lowest=0,
            highest=1,
            needs=("parameter",),
        ),
    ] = 1.0
    guidance_method: Annotated[
        GuidanceMethod,
        ParameterSpec(help="Formula of guidance", needs=("parameter",)),
    ] = "cfg"
    zero_init_steps: Annotated[
        int | None,
        ParameterSpec(
            help="First steps that cfg_zero leaves out",
            lowest=0,
            highest="limits.max_steps",
            needs=("parameter",),
            default="1 for models that predict a flow, otherwise 0",
        ),
    ] = None
    apg_eta: Annotated[
        float,
        ParameterSpec(
            help="Share of guidance along the prediction",
            lowest=0,
            highest=10,
            needs=("parameter",),
        ),
    ] = 0.0
    apg_norm: Annotated[
        float,
        ParameterSpec(
            help="Longest that guidance may be; 0: any",
            lowest=0,
            highest=10_000,
            needs=("parameter",),
        ),
    ] = 0.0
    apg_momentum: Annotated[
        float,
        ParameterSpec(
            help="Weight of the steps before",
            lowest=-1,
            highest=1,
            needs=("parameter",),
        ),
    ] = -0.5
