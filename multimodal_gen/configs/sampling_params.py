"""Sampling parameters: one prompt, and the settings to generate images or a video from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.parameter_spec import ParameterSpec
from multimodal_gen.configs.parameters import parameters_of
from multimodal_gen.configs.prompts.grammar import PromptSyntax
from multimodal_gen.configs.second_pass import UpscaleChoice
from multimodal_gen.errors import InvalidRequest

Priority = Literal["low", "normal", "high"]
ImageUse = Literal["frame", "reference"]


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """A request for images or a video. None means the model's default.

    Each field is declared here and nowhere else: checks, HTTP fields, CLI flags, Python keywords,
    models' defaults and the reference follow from its `ParameterSpec`; see write_types.py.
    """

    prompt: Annotated[str, ParameterSpec(help="What to generate")] = ""
    negative_prompt: Annotated[
        str | None,
        ParameterSpec(
            help="What to avoid; only used with classifier-free guidance",
            needs=("guidance",),
            model_default=True,
        ),
    ] = None
    enhance_prompt: Annotated[
        bool,
        ParameterSpec(
            help="Let a language model rewrite the prompt",
            needs=("parameter",),
            option="prompt_enhancer",
        ),
    ] = False
    prompt_syntax: Annotated[
        PromptSyntax,
        ParameterSpec(help="Prompt weights", needs=("parameter",)),
    ] = "plain"
    width: Annotated[
        int | None,
        ParameterSpec(
            help="Width of the output",
            unit="pixels",
            lowest="size_multiple",
            highest="limits.max_side",
            multiple_of="size_multiple",
            default="the model's, or follows from the input image",
            model_default=True,
            required=True,
        ),
    ] = None
    height: Annotated[
        int | None,
        ParameterSpec(
            help="Height of the output",
            unit="pixels",
            lowest="size_multiple",
            highest="limits.max_side",
            multiple_of="size_multiple",
            default="the model's, or follows from the input image",
            model_default=True,
            required=True,
        ),
    ] = None
    num_frames: Annotated[
        int | None,
        ParameterSpec(
            help="Length of the video",
            unit="frames",
            lowest="limits.min_frames",
            highest="limits.max_frames",
            multiple_of="frame_multiple",
            remainder="limits.min_frames",
            needs=("parameter", "video"),
            model_default=True,
            fallback=1,
            required=True,
        ),
    ] = None
    fps: Annotated[
        int | None,
        ParameterSpec(
            help="Frame rate of the video",
            unit="frames per second",
            lowest=1,
            highest=240,
            needs=("parameter", "video"),
            model_default=True,
        ),
    ] = None
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
    seed: Annotated[
        int | None,
        ParameterSpec(
            help="Random seed; with several outputs, output j uses seed + j",
            lowest=0,
            highest="max_seed",
            default="random, as with -1",
            required=True,
        ),
    ] = None
    num_outputs_per_prompt: Annotated[
        int,
        ParameterSpec(help="Number of outputs per prompt", lowest=1, highest="limits.max_outputs"),
    ] = 1
    max_sequence_length: Annotated[
        int | None,
        ParameterSpec(
            help="Length that prompts are padded or cut to",
            unit="tokens",
            lowest=1,
            highest="limits.max_sequence_length",
            needs=("parameter",),
            model_default=True,
        ),
    ] = None
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
    image_path: Annotated[
        tuple[str, ...] | None,
        ParameterSpec(
            help="Input images, in order",
            needs=("image_model",),
            local=True,
            keyword_type="str | Sequence[str]",
        ),
    ] = None
    last_image_path: Annotated[
        str | None,
        ParameterSpec(help="Last frame of the video", needs=("parameter", "image"), local=True),
    ] = None
    mask_path: Annotated[
        str | None,
        ParameterSpec(help="Mask: white is repainted, black is kept", needs=("image",), local=True),
    ] = None
    image_use: Annotated[
        ImageUse | None,
        ParameterSpec(
            help="Role of the image in a video",
            needs=("parameter", "image"),
            default="one image is the first frame, several are references",
        ),
    ] = None
    video_path: Annotated[
        str | None,
        ParameterSpec(help="Video to start from or to follow", needs=("parameter",), local=True),
    ] = None
    conditioning_scale: Annotated[
        float | None,
        ParameterSpec(
            help="Weight of control video and references",
            lowest=0,
            highest=10,
            needs=("parameter",),
            model_default=True,
        ),
    ] = None
    strength: Annotated[
        float | None,
        ParameterSpec(
            help="Share of the image to replace",
            lowest=0,
            highest=1,
            exclusive=True,
            needs=("image",),
            default="the model's; with a mask, its inpainting_strength",
            model_default=True,
        ),
    ] = None
    keep_unmasked: Annotated[
        bool,
        ParameterSpec(
            help="Keep the image exactly where the mask is black; grey blends",
            needs=("mask",),
        ),
    ] = False
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
            parameter.check_type(getattr(self, name))
        object.__setattr__(self, "lora", tuple(map(LoraChoice.of, _listed(self.lora))))
        object.__setattr__(self, "control", tuple(map(ControlChoice.of, _listed(self.control))))
        if self.upscale is not None:
            object.__setattr__(self, "upscale", UpscaleChoice.of(self.upscale))
        object.__setattr__(self, "sigmas", tuple(self.sigmas))
        paths = [self.image_path] if isinstance(self.image_path, str) else self.image_path
        object.__setattr__(self, "image_path", tuple(paths or ()) or None)

    @classmethod
    def from_fields(cls, **given: Any) -> SamplingParams:
        """Construct from fields. Raises InvalidRequest, which lists the known names, for others."""
        return cls().updated(**given)

    @property
    def levels(self) -> tuple[float, ...]:
        """`sigmas` without a final 0, which every schedule ends with: one per step."""
        return self.sigmas[:-1] if self.sigmas and self.sigmas[-1] == 0 else self.sigmas

    def updated(self, **given: Any) -> SamplingParams:
        """Return a copy with these fields. Raises InvalidRequest, which lists the known names."""
        for name in given:
            if name not in PARAMETERS:
                allowed = f"unknown; allowed are {', '.join(PARAMETERS)}"
                raise InvalidRequest(name, given[name], allowed)
        return replace(self, **given)


def _listed(given: Any) -> Sequence[Any]:
    """One choice, or several."""
    return given if isinstance(given, list | tuple) else (given,)


PARAMETERS = parameters_of(SamplingParams)
"""All sampling parameters, by name."""
