"""Units of the web UI's ControlNet extension, as controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.entrypoints.http.a1111.input_images.geometry import CROP, resized
from multimodal_gen.entrypoints.http.a1111.schema import Generation, ImageToImage
from multimodal_gen.entrypoints.http.media.pictures import bytes_of
from multimodal_gen.entrypoints.python.decoding import decode_picture
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.pictures import Pixels, control_names
from multimodal_gen.messages.request_warning import RequestWarning

FIELD = "alwayson_scripts.controlnet"
SCRIPTS = ("controlnet", "ControlNet")
_READY = (None, "", "none", "None")
_OF_ENCODERS = ("ip-adapter-auto", "ip-adapter_clip_")
"""Starts of the modules that are an IP-Adapter's image encoder, which every IP-Adapter has."""
_RESIZE_MODES = {"Just Resize": 0, "Resize and Fill": 2, "Crop and Resize": CROP}
_BALANCED = (None, 0, "Balanced")
_TAKEN = {
    *("enabled", "image", "input_image", "model", "module", "weight", "mode"),
    *("guidance_start", "guidance_end", "resize_mode", "control_mode"),
    # of preprocessors and of the extension's user interface
    *("pixel_perfect", "processor_res", "threshold_a", "threshold_b", "low_vram", "lowvram"),
    *("save_detected_map", "is_ui", "input_mode", "batch_images", "output_dir", "hr_option"),
}


def controls_of(body: Generation) -> tuple[ControlChoice, ...]:
    """Controls of the units that are on. Raises InvalidRequest."""
    return tuple(map(_choice, _units(body)))


def unit_warnings(body: Generation) -> list[RequestWarning]:
    """Return a warning per setting of a unit that has no effect."""
    found = []
    for unit in _units(body):
        if unit.get("control_mode") not in _BALANCED:
            text = f"{FIELD}: control_mode has no effect: controls are balanced"
            found.append(RequestWarning("no_effect", "control_mode", text))
        idle = [name for name in unit if name not in _TAKEN and unit[name] not in (None, False, "")]
        found += [_idle(name) for name in idle]
    return [*dict.fromkeys(found)]


def _idle(name: str) -> RequestWarning:
    text = f"{FIELD}: {name[:60]!a} has no effect on this server"
    return RequestWarning("no_effect", name[:60], text)


def control_pixels(
    body: Generation, size: tuple[int, int] | None, model: ModelInfo, max_pixels: int
) -> Pixels:
    """Decode the pictures of the units, cut to the shape of the output, (width, height), as their
    resize mode says. A unit of img2img without a picture has the first image. Raises
    InvalidRequest."""
    units = list(_units(body))
    if len(units) > (most := model.limits.max_controls):
        raise InvalidRequest(FIELD, f"{len(units)} units", f"must be at most {most}")
    names = control_names(len(units))
    return {
        name: _pixels(unit, body, size, max_pixels) for name, unit in zip(names, units, strict=True)
    }


def _units(body: Generation) -> Iterator[Mapping[str, Any]]:
    scripts = body.alwayson_scripts or {}
    return units_in(next((scripts[name] for name in SCRIPTS if name in scripts), None))


def units_in(script: object) -> Iterator[Mapping[str, Any]]:
    """Units of the extension's script that are on and have a model."""
    given = script.get("args") if isinstance(script, dict) else script
    for unit in given if isinstance(given, Sequence) and not isinstance(given, str) else ():
        if isinstance(unit, dict) and unit.get("enabled") is not False and _model(unit):
            yield unit


def _model(unit: Mapping[str, Any]) -> str:
    """Name of a unit's control, without the hash that the web UI shows behind it."""
    given = unit.get("model")
    name = given.partition(" [")[0] if isinstance(given, str) else ""
    return "" if name in ("None", "none") else name


def _choice(unit: Mapping[str, Any]) -> ControlChoice:
    if unit.get("module") not in _READY and not _is_encoded(unit):
        allowed = "preprocessors are not available: send the finished picture, and module none"
        raise InvalidRequest(FIELD, unit["module"], allowed)
    numbers = {"scale": "weight", "start": "guidance_start", "stop": "guidance_end"}
    given = {ours: unit[theirs] for ours, theirs in numbers.items() if unit.get(theirs) is not None}
    return ControlChoice.of({"name": _model(unit), "mode": unit.get("mode"), **given})


def _is_encoded(unit: Mapping[str, Any]) -> bool:
    """True for a picture that an IP-Adapter's image encoder is to see."""
    return str(unit.get("module")).startswith(_OF_ENCODERS)


def _pixels(
    unit: Mapping[str, Any], body: Generation, size: tuple[int, int] | None, max_pixels: int
) -> Any:
    import numpy as np
    from PIL import Image

    sent = unit.get("image") or unit.get("input_image")
    if isinstance(sent, dict):
        sent = sent.get("image")
    if sent is None and isinstance(body, ImageToImage) and body.init_images:
        sent = body.init_images[0]
    if not isinstance(sent, str) or not sent:
        raise InvalidRequest(FIELD, _model(unit), "needs an image: base64, or a data URL")
    pixels = decode_picture(bytes_of(sent, FIELD), FIELD, max_pixels=max_pixels)
    mode = unit.get("resize_mode", CROP)
    mode = _RESIZE_MODES.get(mode, mode) if isinstance(mode, str) else mode
    if size is None or mode == 0 or _is_encoded(unit):  # The engine fits it.
        return pixels
    return np.asarray(resized(Image.fromarray(pixels), size, mode))
