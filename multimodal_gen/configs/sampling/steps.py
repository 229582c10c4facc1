"""Parameters of the denoising steps: their number, noise levels and solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from multimodal_gen.configs.parameter_spec import ParameterSpec
from multimodal_gen.configs.step_cache import Quality


@dataclass(frozen=True, kw_only=True)
class StepParameters:
    """Declares how noise becomes an output."""

    num_inference_steps: Annotated[
        int | None,
        ParameterSpec(
            help="Denoising steps; more take longer and show more detail",
            lowest=1,
            highest="limits.max_steps",
            model_default=True,
            required=True,
        ),
    ] = None
    quality: Annotated[
        Quality,
        ParameterSpec(help="exact, or faster with some steps extrapolated", one_of="qualities"),
    ] = "exact"
    scheduler: Annotated[
        str | None,
        ParameterSpec(
            help="Solver: euler, dpmpp_2m, …; `models` lists those that fit",
            one_of="schedulers",
            default="the first of the model's schedulers",
        ),
    ] = None
    noise_schedule: Annotated[
        str | None,
        ParameterSpec(
            help="Noise levels: karras, beta, …; `models` lists what fits",
            one_of="noise_schedules",
            default="normal: the model's own",
        ),
    ] = None
    timestep_spacing: Annotated[
        Literal["leading", "trailing", "linspace"] | None,
        ParameterSpec(
            help="Where the timesteps lie",
            needs=("parameter",),
            default="the checkpoint's",
        ),
    ] = None
    sigmas: Annotated[
        tuple[float, ...],
        ParameterSpec(
            help="Noise levels of the steps, falling, unshifted",
            lowest=0,
            highest=1000,
            needs=("parameter",),
            keyword_type="Sequence[float]",
        ),
    ] = ()
    flow_shift: Annotated[
        float | None,
        ParameterSpec(
            help="Shift of a flow schedule; larger: more on layout",
            lowest=0.01,
            highest=100,
            needs=("parameter",),
            model_default=True,
        ),
    ] = None
    decode_timestep: Annotated[
        float | None,
        ParameterSpec(
            help="Noise level told to the decoder; LTX-Video: 0.05",
            lowest=0,
            highest=1,
            needs=("parameter",),
            model_default=True,
        ),
    ] = None
    decode_noise_scale: Annotated[
        float | None,
        ParameterSpec(
            help="Share of noise in the latents that are decoded",
            lowest=0,
            highest=1,
            needs=("parameter",),
            default="decode_timestep, or the model's",
            model_default=True,
        ),
    ] = None
