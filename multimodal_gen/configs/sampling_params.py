"""Sampling parameters: one prompt, and the settings to generate images or a video from it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.configs.declarations.short_repr import short_repr
from multimodal_gen.configs.declarations.similar_names import suggesting_names
from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.parameter_spec import ParameterSpec
from multimodal_gen.configs.parameters import parameters_of
from multimodal_gen.configs.sampling.guidance import GuidanceParameters
from multimodal_gen.configs.sampling.inputs import InputParameters
from multimodal_gen.configs.sampling.output import OutputParameters
from multimodal_gen.configs.sampling.steps import StepParameters
from multimodal_gen.configs.second_pass import UpscaleChoice

Priority = Literal["low", "normal", "high"]


@suggesting_names
@dataclass(frozen=True, kw_only=True)
class SamplingParams(InputParameters, GuidanceParameters, StepParameters, OutputParameters):
    """A request for images or a video. None means the model's default.

    Each field is declared once, here or in a base class: checks, HTTP fields, CLI flags, Python
    keywords, models' defaults and the reference follow from its `ParameterSpec`; see
    write_types.py.
    """

    upscale: Annotated[
        UpscaleChoice | None,
        ParameterSpec(help="Larger result", needs=("parameter",), keyword_type="UpscaleLike"),
    ] = None
    lora: Annotated[
        tuple[LoraChoice, ...],
        ParameterSpec(
            help="LoRAs from --lora-dir",
            needs=("parameter",),
            keyword_type="LoraLike | Sequence[LoraLike]",
        ),
    ] = ()
    control: Annotated[
        tuple[ControlChoice, ...],
        ParameterSpec(
            help="Controls in --control-dir",
            needs=("parameter",),
            keyword_type="ControlLike | Sequence[ControlLike]",
        ),
    ] = ()
    priority: Annotated[Priority, ParameterSpec(help="Urgency")] = "normal"
    deadline_s: Annotated[
        float | None,
        ParameterSpec(
            help="Time limit; refused if out of reach",
            unit="seconds",
            lowest=0.001,
            highest=30 * 86400,
        ),
    ] = None

    def __post_init__(self) -> None:
        for name, parameter in PARAMETERS.items():
            if parameter.spec.local:
                object.__setattr__(self, name, _as_text(getattr(self, name)))
            parameter.check_type(getattr(self, name))
        object.__setattr__(self, "lora", tuple(map(LoraChoice.of, _listed(self.lora))))
        object.__setattr__(self, "control", tuple(map(ControlChoice.of, _listed(self.control))))
        if self.upscale is not None:
            object.__setattr__(self, "upscale", UpscaleChoice.of(self.upscale))
        object.__setattr__(self, "sigmas", tuple(self.sigmas))
        paths = [self.image_path] if isinstance(self.image_path, str) else self.image_path
        object.__setattr__(self, "image_path", tuple(paths or ()) or None)

    def __repr__(self) -> str:
        return short_repr(self)

    @classmethod
    def from_fields(cls, **given: Any) -> SamplingParams:
        """Construct from fields. Raises InvalidRequest for other names."""
        return cls(**given)

    @property
    def levels(self) -> tuple[float, ...]:
        """`sigmas` without a final 0, which every schedule ends with: one per step."""
        return self.sigmas[:-1] if self.sigmas and self.sigmas[-1] == 0 else self.sigmas

    def updated(self, **given: Any) -> SamplingParams:
        """Return a copy with these fields. Raises InvalidRequest for other names."""
        return replace(self, **given)


def _as_text(given: Any) -> Any:
    """A path, or several, as text."""
    if isinstance(given, list | tuple):
        return tuple(map(_as_text, given))
    return os.fspath(given) if isinstance(given, os.PathLike) else given


def _listed(given: Any) -> Sequence[Any]:
    """One choice, or several."""
    return given if isinstance(given, list | tuple) else (given,)


PARAMETERS = parameters_of(SamplingParams)
"""All sampling parameters, by name."""
