"""Origin of a file: the settings in its metadata, ours or AUTOMATIC1111's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.sampling_params import PARAMETERS, SamplingParams
from multimodal_gen.configs.solvers import SOLVERS, a1111_name
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.postprocess.infotext import parse_infotext
from multimodal_gen.postprocess.metadata import Recipe, read_infotext, read_parameters

Writer = Literal["multimodal_gen", "AUTOMATIC1111"]
_LORA = re.compile(r"\s*<lora:([^:<>]+)(?::([-+0-9.]+))?[^<>]*>")
_NUMBERS: Mapping[str, tuple[str, type]] = {
    "Steps": ("num_inference_steps", int),
    "Seed": ("seed", int),
    "Size-1": ("width", int),
    "Size-2": ("height", int),
    "CFG scale": ("guidance_scale", float),
    "Denoising strength": ("strength", float),
}
_PICTURES = {
    "image": "--image-path",
    "last_image": "--last-image-path",
    "mask": "--mask-path",
    "video": "--video-path",
    "control": "--control",
}


@dataclass(frozen=True)
class Origin:
    """Settings of one output."""

    writer: Writer
    settings: Mapping[str, Any]
    """By our names of parameters, or by those of AUTOMATIC1111's text."""
    model: str
    version: str
    recipe: Recipe | None = None

    def params(self, schedulers: Sequence[str] = ()) -> SamplingParams:
        """The settings as parameters; `schedulers` are those of the model that will use them."""
        if self.recipe is not None:
            return _without_files(self.recipe.params)
        return SamplingParams(**_translated(self.settings, schedulers))

    @property
    def pictures(self) -> tuple[str, ...]:
        """Names of input images and videos, which the file does not keep."""
        return () if self.recipe is None else self.recipe.pictures


def origin_of(field: str, path: str) -> Origin | None:
    """Read the metadata of a PNG, JPEG, WebP, GIF or MP4; None if it has none. Raises
    InvalidRequest, which names `field`, for a file that is none of these."""
    try:
        data = user_path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(field, path, f"can't be read: {reason}") from error
    try:
        return _ours(read_parameters(data))
    except InvalidRequest:
        pass
    except Exception:  # Decoders of videos and crafted images raise exceptions of any type.
        raise InvalidRequest(field, path, _KINDS) from None
    try:
        return _foreign(read_infotext(data))
    except InvalidRequest:
        if data[4:8] == b"ftyp" or data[:4] == b"GIF8":
            return None
        raise InvalidRequest(field, path, _KINDS) from None


_KINDS = "must be a PNG, JPEG, WebP, GIF or MP4"


def missing_pictures(origin: Origin, params: SamplingParams) -> list[str]:
    """The options that must name again what the output was made from."""
    given = {
        "image": bool(params.image_path),
        "last_image": params.last_image_path is not None,
        "mask": params.mask_path is not None,
        "video": params.video_path is not None,
        "control": bool(params.control) and all(each.image for each in params.control),
    }
    needed = dict.fromkeys(re.sub(r"_[0-9]+$", "", name) for name in origin.pictures)
    return [_PICTURES[name] for name in needed if name in given and not given[name]]


_FILES = ("image_path", "last_image_path", "mask_path", "video_path")


def _without_files(params: SamplingParams) -> SamplingParams:
    """Return the settings without files. We write none; those that another program named there
    would be read without having been asked for."""
    controls = tuple(replace(each, image=None) for each in params.control)
    return params.updated(**dict.fromkeys(_FILES), control=controls)


def _ours(recipe: Recipe) -> Origin:
    changed = {
        field.name: value
        for field in fields(recipe.params)
        if (value := getattr(recipe.params, field.name)) != PARAMETERS[field.name].default
    }
    return Origin("multimodal_gen", changed, recipe.model, recipe.version, recipe)


def _foreign(text: str) -> Origin | None:
    if not text:
        return None
    parsed = parse_infotext(text)
    model, version = parsed.pop("Model", ""), parsed.pop("Version", "")
    return Origin("AUTOMATIC1111", parsed, model, version)


def _number(text: str, kind: type) -> int | float:
    """Whole ones exactly: a float has no room for each seed. Raises ValueError."""
    if kind is not int:
        return float(text)
    try:
        return int(text)
    except ValueError:
        number = float(text)
    if not number.is_integer():  # infinity isn't, either
        raise ValueError(f"{text!r} is not a whole number")
    return int(number)


def _translated(settings: Mapping[str, str], schedulers: Sequence[str]) -> dict[str, Any]:
    prompt = settings.get("Prompt", "")
    loras = [LoraChoice(name, float(scale or 1)) for name, scale in _LORA.findall(prompt)]
    found: dict[str, Any] = {"prompt": _LORA.sub("", prompt).strip(), "lora": tuple(loras)}
    if negative := settings.get("Negative prompt"):
        found["negative_prompt"] = negative
    for key, (name, kind) in _NUMBERS.items():
        if key in settings:
            found[name] = _number(settings[key], kind)
    sampler = settings.get("Sampler", "")
    fitting = (name for name in SOLVERS if a1111_name(name) == sampler and name in schedulers)
    return found | {"scheduler": next(fitting, None)}
