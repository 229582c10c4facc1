"""Parameters of guidance: how closely the output follows the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from multimodal_gen.configs.parameter_spec import ParameterSpec


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
