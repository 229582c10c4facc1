"""AUTOMATIC1111's generation parameters as text: prompt, negative prompt, a line of settings."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.solvers import a1111_name, a1111_schedule

_NEGATIVE = "Negative prompt: "
_SETTING = re.compile(r'\s*(\w[\w \-/]{0,60}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_FEWEST_SETTINGS = 3
"""Minimum settings in the last line; with fewer it belongs to the prompt, as in the web UI."""
_LONGEST_SETTINGS = 4096
"""Maximum characters of a settings line; a longer one is prompt, and not searched."""
_SIZE = re.compile(r"([0-9]+)x([0-9]+)", re.ASCII)


def write(
    params: SamplingParams, model: str, version: str, revised_prompt: str | None = None
) -> str:
    """Format parameters whose defaults are filled in. A prompt that was enhanced is a setting:
    other programs get the image's own."""
    original = None if revised_prompt is None else params.prompt
    params = params if revised_prompt is None else replace(params, prompt=revised_prompt)
    loras = "".join(f" {_tag(lora)}" for lora in params.lora)
    lines = [params.prompt.replace("\0", "") + loras]
    if params.negative_prompt:
        lines.append(_NEGATIVE + params.negative_prompt.replace("\0", ""))
    settings = _settings(params, model, version)
    settings += [] if original is None else [("Original prompt", original)]
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in settings))
    return "\n".join(lines)


def parse_infotext(text: str) -> dict[str, str]:
    """Parse the settings by name, plus `Prompt`, `Negative prompt` and a size as `Size-1` (width)
    and `Size-2` (height). Ambiguous text counts as prompt."""
    *lines, last = text.rstrip("\n").split("\n")
    found = _SETTING.findall(last) if len(last) <= _LONGEST_SETTINGS else []
    if len(found) < _FEWEST_SETTINGS:
        lines, found = [*lines, last], []
    negatives = [i for i, line in enumerate(lines) if line.startswith(_NEGATIVE.rstrip())]
    first = negatives[0] if negatives else len(lines)
    negative = "\n".join(lines[first:])
    parsed = {
        "Prompt": "\n".join(lines[:first]),
        "Negative prompt": negative.removeprefix(_NEGATIVE.rstrip()).removeprefix(" "),
    }
    for key, value in found:
        if (size := _SIZE.fullmatch(value)) is not None:
            parsed |= {f"{key}-1": size[1], f"{key}-2": size[2]}
        else:
            parsed[key] = _unquoted(value)
    return parsed


def _settings(params: SamplingParams, model: str, version: str) -> list[tuple[str, object]]:
    embedded, hires = params.true_cfg_scale is not None, params.upscale
    settings = {
        "Steps": params.num_inference_steps,
        "Sampler": params.scheduler and a1111_name(params.scheduler),
        "Schedule type": params.noise_schedule and a1111_schedule(params.noise_schedule),
        "CFG scale": params.true_cfg_scale if embedded else params.guidance_scale,
        "Distilled CFG Scale": params.guidance_scale if embedded else None,
        "Seed": params.seed,
        "Size": f"{params.width}x{params.height}",
        "Model": model,
        "Denoising strength": params.strength if hires is None else hires.strength,
        "Hires upscale": hires and hires.factor,
        "Hires steps": hires and hires.steps,
        "Hires upscaler": hires and (hires.model or "Lanczos"),
        "Shift": params.flow_shift,
        "Skip Early CFG": _early_share(params),
        "Max sequence length": params.max_sequence_length,
        "Prompt syntax": None if params.prompt_syntax == "plain" else params.prompt_syntax,
        "Quality": None if params.quality == "exact" else params.quality,
        "Version": f"multimodal_gen {version}",
    }
    return [(key, value) for key, value in settings.items() if value is not None]


def _early_share(params: SamplingParams) -> float | None:
    """The web UI's share for the steps before guidance: those that begin at no more than that."""
    steps = params.num_inference_steps or 1
    skipped = int(params.guidance_start * steps)
    return round((skipped - 0.5) / steps, 4) if skipped else None


def _tag(lora: LoraChoice) -> str:
    target = f":target={lora.target}" if lora.target else ""
    span = "" if lora.is_throughout else f":start={lora.start}:stop={lora.stop}"
    return f"<lora:{lora.name}:{lora.scale}{target}{span}>"


def _quoted(value: object) -> str:
    text = str(value)
    if any(mark in text for mark in ',:\n"'):
        return json.dumps(text, ensure_ascii=False)
    return text


def _unquoted(value: str) -> str:
    if len(value) < 2 or not value.startswith('"'):
        return value
    try:
        text = str(json.loads(value))
        text.encode()  # half a surrogate pair can be parsed, but not encoded
    except ValueError:
        return value
    return text
