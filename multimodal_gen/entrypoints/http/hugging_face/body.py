"""Parses the request bodies of Hugging Face's clients."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.exceptions import RequestValidationError

from multimodal_gen.configs.sampling_params import PARAMETERS, SamplingParams
from multimodal_gen.entrypoints.http.bodies.json_body import Body
from multimodal_gen.entrypoints.http.media.pictures import bytes_of
from multimodal_gen.entrypoints.http.media.solvers import nearest_solver, solver_named
from multimodal_gen.entrypoints.http.transport.hints import similar_field
from multimodal_gen.entrypoints.python.decoding import decode_picture
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.pictures import NO_PIXELS, Pixels
from multimodal_gen.messages.request_warning import RequestWarning

_OWN_WAY = {"prompt", "scheduler", "num_outputs_per_prompt"}
"""Parameters that these bodies give under other names or with other values."""
_PASSED_ON = frozenset(
    name
    for name, each in PARAMETERS.items()
    if not each.spec.local and "video" not in each.spec.needs and name not in _OWN_WAY
)
_PICTURES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_OBJECT = re.compile(rb"[ \t\r\n]*\{")
_ENOUGH = 64
"""Number of base64 characters that suffice to detect the file type."""
_MAX_SHOWN = 20


@dataclass(frozen=True)
class Asked:
    """A parsed body."""

    params: SamplingParams
    pictures: Pixels
    warnings: tuple[RequestWarning, ...] = ()


def understood(body: Body, given: Any, model: ModelInfo, max_pixels: int) -> Asked:
    """Convert `given`, the JSON of the body; None if the body is an image file. Slow. Raises
    InvalidRequest."""
    if given is None:
        return Asked(SamplingParams(), _picture(bytes(body), max_pixels))
    if given.get("inputs") is None:
        lacking = {"type": "missing", "loc": ("body", "inputs"), "msg": "", "input": given}
        raise RequestValidationError([lacking])
    inputs, parameters = given.get("inputs"), given.get("parameters")
    if not isinstance(inputs, str):
        raise InvalidRequest("inputs", type(inputs).__name__, "must be text, or a file in base64")
    if not isinstance(parameters, dict | None):
        raise InvalidRequest("parameters", type(parameters).__name__, "must be an object")
    parameters = {name: value for name, value in (parameters or {}).items() if value is not None}
    others = [name for name in given if name not in ("inputs", "parameters")]
    return _asked(inputs, parameters, model, max_pixels, others)


def is_json(body: Body) -> bool:
    """True if the body is JSON; everything else is an image file."""
    return _OBJECT.match(body) is not None


def _asked(
    inputs: str,
    parameters: dict[str, Any],
    model: ModelInfo,
    max_pixels: int,
    others: list[str],
) -> Asked:
    prompt, pictures = inputs, NO_PIXELS
    if "prompt" in parameters or _is_picture(inputs):
        prompt = parameters.pop("prompt", "")
        pictures = _picture(bytes_of(inputs, "inputs"), max_pixels)
    if (target := parameters.pop("target_size", None)) is not None:
        parameters |= _sides(target)
    scheduler, warnings = _solver(parameters.pop("scheduler", None), model)
    if (count := parameters.pop("num_images_per_prompt", 1)) != 1:
        raise InvalidRequest("num_images_per_prompt", count, "must be 1: the response is one file")
    known = {name: _whole(name, parameters[name]) for name in parameters if name in _PASSED_ON}
    others += [name for name in parameters if name not in _PASSED_ON]
    warnings = (*_unknown(others), *warnings)
    params = SamplingParams(prompt=prompt, scheduler=scheduler, **known)
    return Asked(params, pictures, warnings)


def _picture(file: bytes, max_pixels: int) -> Pixels:
    return {"image": decode_picture(file, "inputs", max_pixels=max_pixels)}


def _is_picture(inputs: str) -> bool:
    """Return whether text is an image in base64; no prompt starts like one."""
    if inputs.startswith("data:image/"):
        return True
    try:
        start = binascii.a2b_base64(inputs[:_ENOUGH].encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        return False
    return len(inputs) > _ENOUGH and (start.startswith(_PICTURES) or start[4:8] == b"ftyp")


def _sides(target: object) -> dict[str, Any]:
    if not isinstance(target, dict) or not target.keys() <= {"width", "height"}:
        allowed = "must be an object with width and height"
        raise InvalidRequest("target_size", target, allowed)
    return target


def _solver(name: object, model: ModelInfo) -> tuple[str | None, tuple[RequestWarning, ...]]:
    """Return the solver that is named, else the nearest with a warning."""
    if name is None:
        return None, ()
    if not isinstance(name, str):
        raise InvalidRequest("scheduler", name, "must be text")
    if (solver := solver_named(name, model.schedulers)) is not None:
        return solver, ()
    nearest = nearest_solver(name, model.schedulers)
    text = f"scheduler={name[:60]!a}: this model uses {nearest} instead"
    return nearest, (RequestWarning("nearest_solver", "scheduler", text),)


def _unknown(names: Sequence[str]) -> Iterator[RequestWarning]:
    """Return one warning about all parameters that are ignored."""
    if not names:
        return
    shown = [*map(_shown, names[:_MAX_SHOWN])]
    if len(names) > _MAX_SHOWN:
        shown = [*shown[:-1], f"and {len(names) - _MAX_SHOWN + 1} more"]
    text = f"these parameters are unknown and were ignored: {', '.join(shown)}"
    yield RequestWarning("unknown_field", names[0][:60] if len(names) == 1 else None, text)


def _whole(name: str, value: Any) -> Any:
    """Convert a number such as 20.0 for a parameter that takes integers, as JavaScript has one
    type of number."""
    is_whole = isinstance(value, float) and value.is_integer()
    return int(value) if is_whole and PARAMETERS[name].kind is int else value


def _shown(name: str) -> str:
    """A name for a header, which must not be empty, nor end with a space."""
    shown = re.sub(r"[^\w.-]", "?", name[:60], flags=re.ASCII) or '""'
    meant = similar_field(name, _PASSED_ON)
    return f"{shown} (did you mean {meant}?)" if meant else shown
