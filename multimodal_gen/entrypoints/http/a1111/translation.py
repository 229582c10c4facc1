"""Translates bodies of txt2img and img2img into sampling parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.second_pass import UpscaleChoice
from multimodal_gen.configs.step_cache import Quality
from multimodal_gen.entrypoints.http.a1111.chosen_models import CHECKPOINT
from multimodal_gen.entrypoints.http.a1111.hires_fix import HIRES, hires_fix
from multimodal_gen.entrypoints.http.a1111.ignored import ignored, ignored_infotext
from multimodal_gen.entrypoints.http.a1111.input_images.controlnet import (
    controls_of,
    unit_warnings,
)
from multimodal_gen.entrypoints.http.a1111.prompt_syntax import number, parse_prompt, without_effect
from multimodal_gen.entrypoints.http.a1111.samplers import SamplerChoice
from multimodal_gen.entrypoints.http.a1111.schema import Generation, ImageToImage, TextToImage
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.request_warning import RequestWarning
from multimodal_gen.postprocess.infotext import parse_infotext

DENOISING_STRENGTH = 0.75
"""Default of the web UI."""
_LARGEST = 10**6
_FROM_INFOTEXT = {
    "Prompt": "prompt",
    "Negative prompt": "negative_prompt",
    "Steps": "steps",
    "Sampler": "sampler_name",
    "Schedule type": "scheduler",
    "CFG scale": "cfg_scale",
    "Distilled CFG Scale": "distilled_cfg_scale",
    "Seed": "seed",
    "Size-1": "width",
    "Size-2": "height",
    "Denoising strength": "denoising_strength",
    **HIRES,
    "Shift": "flow_shift",
    "Skip Early CFG": "skip_early_cond",
    "Max sequence length": "max_sequence_length",
    "Prompt syntax": "prompt_syntax",
    "Quality": "quality",
}
_TEXTS = (
    "prompt",
    "negative_prompt",
    "prompt_syntax",
    "sampler_name",
    "scheduler",
    "hr_upscaler",
    "quality",
)
B = TypeVar("B", bound=Generation)


def to_sampling_params(
    body: Generation, model: ModelInfo
) -> tuple[SamplingParams, list[RequestWarning]]:
    """Return sampling parameters for `body`, and a warning for each field that the model does not
    support. Raises InvalidRequest."""
    translator = _Translator(body, model)
    return translator.params(), translator.warnings


@dataclass
class _Translator:
    """Translates one body."""

    body: Generation
    model: ModelInfo
    warnings: list[RequestWarning] = field(default_factory=list)

    def params(self) -> SamplingParams:
        """Return the sampling parameters. Raises InvalidRequest."""
        body = self.body
        reads_weights = "prompt_syntax" in self.model.parameters
        syntax = body.prompt_syntax or "a1111" if reads_weights else "plain"
        weighted = syntax != "plain"
        prompt, negative = parse_prompt(body.prompt or "", weighted=weighted), body.negative_prompt
        self.warnings += prompt.warnings
        self.warnings += without_effect(negative or "", "negative_prompt", weighted)
        width, height = self._size()
        chosen = SamplerChoice.of(body, self.model)
        self.warnings += chosen.warnings
        self._warn_of_idle_keys(chosen.solver)
        self.warnings += unit_warnings(body)
        return SamplingParams(
            prompt=prompt.text,
            negative_prompt=negative or self._empty_negative(),
            prompt_syntax=syntax,
            width=width,
            height=height,
            num_inference_steps=body.steps,
            seed=None if body.seed is None or body.seed < 0 else body.seed,
            num_outputs_per_prompt=self._count(),
            scheduler=chosen.solver,
            noise_schedule=chosen.noise_schedule,
            strength=self._strength(),
            keep_unmasked=self._keeps_unmasked(),
            upscale=self._upscale(width, height),
            lora=() if body.disable_extra_networks else prompt.loras,
            control=controls_of(body),
            max_sequence_length=body.max_sequence_length,
            flow_shift=body.flow_shift,
            quality=self._quality(),
            guidance_start=self._guidance_start(),
            **self._guidance(),
        )

    def _count(self) -> int:
        count, most = self.body.count(), self.model.limits.max_outputs
        if not 1 <= count <= most:
            raise InvalidRequest("batch_size * n_iter", count, f"must be 1 to {most}")
        return count

    def _quality(self) -> Quality:
        quality = self.body.quality or "exact"
        if quality in self.model.qualities:
            return quality
        allowed = ", ".join(self.model.qualities)
        text = f"quality={quality} has no effect: this model allows {allowed}"
        self._warn("no_effect", "quality", text)
        return "exact"

    def _guidance(self) -> dict[str, Any]:
        """Return both guidance scales if the model has two and the client sends both, else the one
        that guides the model."""
        body = self.body
        if body.distilled_cfg_scale is not None and "true_cfg_scale" in self.model.parameters:
            return {
                "guidance_scale": body.distilled_cfg_scale,
                "true_cfg_scale": body.cfg_scale,
            }
        return {self.model.cfg_parameter: body.cfg_scale}

    def _empty_negative(self) -> str | None:
        """Return "", which clients send for no negative prompt, only if true guidance needs it."""
        by_true = self.model.cfg_parameter == "true_cfg_scale"
        return "" if by_true and self.body.cfg_scale is not None else None

    def _guidance_start(self) -> float:
        """Return the share of the steps that the web UI does without the negative prompt: those
        that begin at no more than `skip_early_cond` of all."""
        body = self.body
        share = (body.override_settings or {}).get("skip_early_cond", body.skip_early_cond)
        if share in (None, 0):
            return 0.0
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise InvalidRequest("skip_early_cond", share, "must be a number from 0 to 1")
        if "guidance_start" not in self.model.parameters:
            text = "skip_early_cond has no effect: this model has no guidance"
            self._warn("no_effect", "skip_early_cond", text)
            return 0.0
        steps = body.steps or self.model.defaults.num_inference_steps
        skipped = min(sum(step / steps <= share for step in range(steps)), steps - 1)
        return (skipped + 0.5) / steps if skipped else 0.0

    def _strength(self) -> float | None:
        if not isinstance(self.body, ImageToImage):
            return None
        task = "inpainting" if self.body.mask else "image-to-image"
        if task in self.model.tasks:
            given = self.body.denoising_strength
            return DENOISING_STRENGTH if given is None else given
        text = "denoising_strength has no effect: this model takes the image itself"
        self._warn("no_effect", "denoising_strength", text)
        return None

    def _upscale(self, width: int | None, height: int | None) -> UpscaleChoice | None:
        body = self.body
        if not isinstance(body, TextToImage) or not body.enable_hr:
            return None
        if "upscale" not in self.model.parameters:
            text = "enable_hr has no effect: this model starts from no images"
            self._warn("no_effect", "enable_hr", text)
            return None
        usual = self.model.defaults
        size, models = (width or usual.width, height or usual.height), self.model.upscale_ways
        choice, warnings = hires_fix(body, *size, models="model" in models)
        self.warnings += warnings
        return choice

    def _keeps_unmasked(self) -> bool:
        body = self.body
        return isinstance(body, ImageToImage) and bool(body.mask) and not body.only_masked

    def _size(self) -> tuple[int | None, int | None]:
        """Return the nearest size that the model supports."""
        wanted = self.body.width, self.body.height
        width, height = fitting(*wanted, self.model)
        if (width, height) != wanted:
            made = f"{width or 'any'}x{height or 'any'}"
            asked = f"{wanted[0] or 'any'}x{wanted[1] or 'any'}"
            self._warn("replaced", "width", f"size={asked}: this model generates {made} instead")
        return width, height

    def _warn_of_idle_keys(self, solver: str | None) -> None:
        own = next(iter(self.model.schedulers), None)
        self.warnings += ignored(self.body, solver or own)
        if self.body.infotext:
            said = parse_infotext(self.body.infotext)
            self.warnings += ignored_infotext(said, _FROM_INFOTEXT)
        if isinstance(self.body, ImageToImage):
            self._warn_of_image_keys(self.body)
        wanted = (self.body.override_settings or {}).get(CHECKPOINT)
        if wanted and not is_model(wanted, self.model):
            what = f"{CHECKPOINT}={_shown(wanted)}"
            self._warn("replaced", CHECKPOINT, f"{what}: this server has only {self.model.name}")

    def _warn_of_image_keys(self, body: ImageToImage) -> None:
        if body.mask and body.inpainting_fill not in (None, 0, 1):
            text = f"inpainting_fill={body.inpainting_fill}: the image is used (1)"
            self._warn("replaced", "inpainting_fill", text)
        if body.resize_mode not in (None, 0, 1, 2):
            text = f"resize_mode={body.resize_mode}: images are stretched (0)"
            self._warn("replaced", "resize_mode", text)

    def _warn(self, code: str, field: str, text: str) -> None:
        self.warnings.append(RequestWarning(code, field, text))


def with_infotext(body: B) -> B:
    """Return the body, with unset fields filled from its infotext. Raises InvalidRequest."""
    if body.infotext is None:
        return body
    said = parse_infotext(body.infotext)
    given = body.model_dump(exclude_none=True)
    if isinstance(body, TextToImage) and any(key in said for key in HIRES):
        given.setdefault("enable_hr", True)
    for key, name in _FROM_INFOTEXT.items():
        if key in said:
            given.setdefault(name, said[key] if name in _TEXTS else number(said[key]))
    if said.get("Version", "").startswith("multimodal_gen "):  # which says how it read the prompt
        given.setdefault("prompt_syntax", "plain")
    try:
        return type(body).model_validate(given)
    except ValidationError as error:
        wrong = str(error.errors()[0]["loc"][0])
        raise InvalidRequest("infotext", given.get(wrong), f"is not a valid {wrong}") from None


def fitting(
    width: int | None, height: int | None, model: ModelInfo
) -> tuple[int | None, int | None]:
    """Return the size that a model supports for one from the web UI: rounded down as there, and
    scaled down to the model's limits at the same shape. Sides below 1 are left unchanged."""
    width, height = _floored(width, model), _floored(height, model)
    if width is None or height is None or min(width, height) < 1:
        return width, height
    limits = model.limits
    longest = max(width, height) / limits.max_side
    scale = max(1.0, longest, math.sqrt(width * height / limits.max_pixels))
    if scale == 1:
        return width, height
    return _floored(int(width / scale), model), _floored(int(height / scale), model)


def _floored(side: int | None, model: ModelInfo) -> int | None:
    if side is None or side < 1:
        return side
    return max(1, min(side, _LARGEST) // model.size_multiple) * model.size_multiple


def is_model(name: object, model: ModelInfo) -> bool:
    """Return whether a client's checkpoint name means the served model."""
    return isinstance(name, str) and name.partition(" [")[0].lower() == model.name.lower()


def _shown(value: object) -> str:
    return repr(value)[:80]
