"""Checks a request's input images against the model, and derives the output size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from multimodal_gen.configs.sampling_params import PARAMETERS, SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.codec import MAX_CLIENT_FRAME_BYTES, FrameHeader, header_of
from multimodal_gen.messages.model_info import ModelInfo

if TYPE_CHECKING:
    import numpy as np

Pictures = Mapping[str, FrameHeader]
"""`image` [H, W, 3] and `mask` [H, W], without their pixels."""
Pixels = Mapping[str, "np.ndarray[Any, Any]"]
"""`image` [H, W, 3] and `mask` [H, W], uint8."""

_CHANNELS = {"image": (3,), "mask": ()}
_FROM_NOISE = ("text-to-image", "text-to-video")
OWN_PIXELS = 2048 * 2048
"""An output has its image's own size up to so many pixels. Larger ones must be asked for."""
_STEP = 32
"""Sizes derived from an image's shape are multiples of it, in pixels: models were trained on
those."""


def headers_of(pixels: Pixels) -> Pictures:
    """Headers of a request's input images."""
    return {name: header_of(picture) for name, picture in pixels.items()}


def check_pictures(params: SamplingParams, model: ModelInfo, pictures: Pictures) -> None:
    """Raise InvalidRequest for an image that the model does not accept, requires or can't read."""
    for name, parameter in PARAMETERS.items():
        if parameter.spec.local and (path := getattr(params, name)) is not None:
            raise InvalidRequest(name, path, "is opened by the client: send the pixels instead")
    for name, header in pictures.items():
        _check_shape(name, header)
    _check_tasks(model, pictures)
    if params.strength is None:
        return
    task = "inpainting" if "mask" in pictures else "image-to-image"
    if "image" not in pictures or task not in model.tasks:
        allowed = "only allowed with an input image, for a model that starts from it"
        raise InvalidRequest("strength", params.strength, allowed)


def strength_of(model: ModelInfo, pictures: Pictures) -> float | None:
    """Default strength of the model for a request with these input images."""
    if "image" not in pictures:
        return None
    return model.defaults.inpainting_strength if "mask" in pictures else model.defaults.strength


def output_size(params: SamplingParams, model: ModelInfo, pictures: Pictures) -> tuple[int, int]:
    """Output width and height in pixels: as requested, else derived from the image or the model."""
    width, height = params.width, params.height
    both_asked = width is not None and height is not None
    if "image" not in pictures or model.picture_size == "default" or both_asked:
        return _or(width, model.defaults.width), _or(height, model.defaults.height)
    rows, columns = pictures["image"].shape[:2]
    step = model.size_multiple
    counted: Callable[[float], int] = round
    usual = model.defaults.width * model.defaults.height
    if width is not None:
        scale = width / columns
    elif height is not None:
        scale = height / rows
    elif model.picture_size in ("own", "within"):
        most = min(OWN_PIXELS, model.limits.max_pixels) if model.picture_size == "own" else usual
        scale = min(1.0, math.sqrt(most / (rows * columns)))
        counted = math.floor
    else:
        scale = math.sqrt(usual / (rows * columns))
        step = math.lcm(_STEP, step)
    longest = model.limits.max_side // step
    following = [max(1, min(counted(side * scale / step), longest)) for side in (columns, rows)]
    return _or(width, following[0] * step), _or(height, following[1] * step)


def _or(asked: int | None, following: int) -> int:
    """Only None means unset: 0 was requested, and is refused later."""
    return following if asked is None else asked


def placeholder_inputs(model: ModelInfo) -> Pictures:
    """The smallest set of input images that a request to the model must have."""
    if any(task in _FROM_NOISE for task in model.tasks):
        return {}
    size = (model.defaults.height, model.defaults.width)
    mask = {"mask": FrameHeader(size)} if model.tasks == ("inpainting",) else {}
    return {"image": FrameHeader((*size, 3)), **mask}


def _check_shape(name: str, header: FrameHeader) -> None:
    if name not in _CHANNELS:
        raise InvalidRequest("pictures", name, f"must be one of {', '.join(_CHANNELS)}")
    sides, channels = header.shape[:2], header.shape[2:]
    if len(sides) != 2 or channels != _CHANNELS[name] or min(sides) < 1:
        wanted = "[height, width, 3]" if name == "image" else "[height, width]"
        raise InvalidRequest(f"{name}_path", list(header.shape), f"pixels must have shape {wanted}")
    if header.dtype != "uint8":
        raise InvalidRequest(f"{name}_path", header.dtype, "pixels must be uint8")
    if header.nbytes > MAX_CLIENT_FRAME_BYTES:
        allowed = f"must be at most {MAX_CLIENT_FRAME_BYTES} bytes of pixels"
        raise InvalidRequest(f"{name}_path", list(header.shape), allowed)


def _check_tasks(model: ModelInfo, pictures: Pictures) -> None:
    tasks = ", ".join(model.tasks)
    from_noise = any(task in _FROM_NOISE for task in model.tasks)
    others = [task for task in model.tasks if task not in _FROM_NOISE]
    if "image" in pictures and not others:
        raise InvalidRequest("image_path", "a picture", f"{model.family} only supports {tasks}")
    if "image" not in pictures and not from_noise:
        raise InvalidRequest("image_path", None, f"required: {model.family} supports {tasks}")
    if "mask" in pictures and "inpainting" not in model.tasks:
        raise InvalidRequest("mask_path", "a mask", f"{model.family} only supports {tasks}")
    if "mask" in pictures and "image" not in pictures:
        raise InvalidRequest("mask_path", "a mask", "requires an input image")
    if "image" in pictures and "mask" not in pictures and others == ["inpainting"]:
        raise InvalidRequest("mask_path", None, f"required: {model.family} paints inside a mask")
