"""The web UI's hires. fix: a second pass from the enlarged result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from multimodal_gen.configs.second_pass import UpscaleChoice
from multimodal_gen.entrypoints.http.a1111.schema import TextToImage
from multimodal_gen.messages.request_warning import RequestWarning

SCALE, STRENGTH = 2.0, 0.75
"""Defaults of the web UI."""
UPSCALER = "Lanczos"
_INTERPOLATIONS = ("None", "Nearest", "Latent")
"""How names start that are of no model."""
_AS_FIRST = "Use same"
"""How the values of keys start that change nothing from the first pass to the second."""


HIRES = {
    "Hires upscale": "hr_scale",
    "Hires steps": "hr_second_pass_steps",
    "Hires upscaler": "hr_upscaler",
}
"""Keys of the infotext, and of the body."""


def hires_fix(
    body: TextToImage, width: int, height: int, *, models: bool = False
) -> tuple[UpscaleChoice, list[RequestWarning]]:
    """Return the second pass that the body asks for after a first one of this size, and a warning
    for each of its keys without effect. Raises InvalidRequest.

    `models`: the upscaler may be one of the operator's models.
    """
    strength = STRENGTH if body.denoising_strength is None else body.denoising_strength
    name = body.hr_upscaler or UPSCALER
    model = name if models and not name.startswith((UPSCALER, *_INTERPOLATIONS)) else None
    chosen: dict[str, Any] = {"factor": _factor(body, width, height), "model": model}
    if strength or model is None:
        chosen |= {"strength": float(strength), "steps": body.hr_second_pass_steps or None}
    return UpscaleChoice.of(chosen), [*_warnings(body, model)]


def _factor(body: TextToImage, width: int, height: int) -> float:
    wanted = [(body.hr_resize_x or 0) / width, (body.hr_resize_y or 0) / height]
    return max(wanted) or float(SCALE if body.hr_scale is None else body.hr_scale)


def _warnings(body: TextToImage, model: str | None) -> Iterator[RequestWarning]:
    if body.hr_upscaler not in (None, "", UPSCALER, model):
        text = f"hr_upscaler={body.hr_upscaler[:60]!r}: {UPSCALER} is used instead"
        yield RequestWarning("replaced", "hr_upscaler", text)
    if body.hr_resize_x and body.hr_resize_y:
        text = "hr_resize_x and hr_resize_y: the result has the shape of the first pass"
        yield RequestWarning("replaced", "hr_resize_x", text)
    for name, value in (body.model_extra or {}).items():
        as_first = not value or str(value).startswith(_AS_FIRST)
        if name.startswith("hr_") and not as_first:
            text = f"{name[:60]} has no effect on this server"
            yield RequestWarning("no_effect", name[:60], text)
