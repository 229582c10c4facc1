"""Checks a request's input images and video against the model, and derives the output's size.

Their names: `image`, then `image_2`, `image_3`, … for further ones in the order given, and
`last_image`, all [H, W, 3]; `mask` [H, W]; `video` [F, H, W, 3]; `control_1`, `control_2`, … of the
entries of `control`, [H, W, 3]. All are uint8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import count, takewhile
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from multimodal_gen.configs.sampling_params import PARAMETERS, SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.checks.fitting_sizes import fitting_frames
from multimodal_gen.messages.codec import MAX_CLIENT_FRAME_BYTES, FrameHeader, header_of
from multimodal_gen.messages.model_info import ModelInfo

if TYPE_CHECKING:
    import numpy as np

Pictures = Mapping[str, FrameHeader]
"""Input images and video by name, without their pixels."""
Pixels = Mapping[str, "np.ndarray[Any, Any]"]
"""Input images and video by name."""
NO_PIXELS: Pixels = MappingProxyType({})
T = TypeVar("T")

_SHAPES = {
    "image": "[height, width, 3]",
    "last_image": "[height, width, 3]",
    "mask": "[height, width]",
    "video": "[frames, height, width, 3]",
    "control": "[height, width, 3]",
}
_NUMBERED = ("image", "control")
_FROM_NOISE = ("text-to-image", "text-to-video")
_FROM_VIDEO = "video-to-video"
MAX_VIDEO_BYTES = 8 * MAX_CLIENT_FRAME_BYTES
"""Maximum pixels of an input video: 5 seconds in 1280 x 720 have less than half of it."""
OWN_PIXELS = 2048 * 2048
"""An output has its image's own size up to so many pixels. Larger ones must be asked for."""
_STEP = 32
"""Sizes derived from an image's shape are multiples of it, in pixels: models were trained on
those."""


def image_names() -> Iterable[str]:
    """Names of a request's images, in their order: `image`, `image_2`, `image_3`, …"""
    yield "image"
    yield from (f"image_{number}" for number in count(2))


def named_images(images: Iterable[T]) -> dict[str, T]:
    """Name a request's images, given in their order."""
    return dict(zip(image_names(), images, strict=False))


def images_of(pictures: Mapping[str, T]) -> list[T]:
    """Return the images of a request in their order, without its mask, last frame and video."""
    return [pictures[name] for name in takewhile(pictures.__contains__, image_names())]


def control_names(controls: int) -> tuple[str, ...]:
    """Names of the pictures of so many controls, in their order."""
    return tuple(f"control_{number}" for number in range(1, controls + 1))


def controls_of(pictures: Mapping[str, T]) -> dict[str, T]:
    """Return the pictures of a request's controls, by name."""
    return {name: picture for name, picture in pictures.items() if _kind(name) == "control"}


def headers_of(pixels: Pixels) -> Pictures:
    """Headers of a request's input images and video."""
    return {name: header_of(picture) for name, picture in pixels.items()}


def check_pictures(params: SamplingParams, model: ModelInfo, pictures: Pictures) -> None:
    """Raise InvalidRequest for an input that the model does not accept, requires or can't read."""
    for name, parameter in PARAMETERS.items():
        if parameter.spec.local and (path := getattr(params, name)) is not None:
            raise InvalidRequest(name, path, "is opened by the client: send the pixels instead")
    for name, header in pictures.items():
        _check_shape(name, header)
    _check_controls(params, model, pictures)
    _check_tasks(model, pictures)
    _check_companions(model, pictures)
    if "last_image" in pictures and params.num_frames == 1 < model.defaults.num_frames:
        raise InvalidRequest("num_frames", 1, "must be more than 1 with a last frame")
    _check_length(params, model, pictures)
    if params.strength is None:
        return
    task = "inpainting" if "mask" in pictures else "image-to-image"
    starts = "image" in pictures and task in model.tasks
    if not starts and not ("video" in pictures and model.defaults.strength is not None):
        allowed = "only allowed with an input image, for a model that starts from it"
        raise InvalidRequest("strength", params.strength, allowed)


def _check_length(params: SamplingParams, model: ModelInfo, pictures: Pictures) -> None:
    """Raise InvalidRequest for more frames than a video has that the model starts from."""
    if params.num_frames is None or "video" not in pictures or model.defaults.strength is None:
        return
    if params.num_frames > (frames := pictures["video"].shape[0]):
        allowed = f"must be at most the input video's {frames} frames"
        raise InvalidRequest("num_frames", params.num_frames, allowed)


def _check_controls(params: SamplingParams, model: ModelInfo, pictures: Pictures) -> None:
    """Raise InvalidRequest unless each control, of no more than the model takes, has a picture."""
    controls = params.control
    if len(controls) > model.limits.max_controls:
        names = [choice.name for choice in controls]
        raise InvalidRequest("control", names, f"must be at most {model.limits.max_controls}")
    for choice in controls:
        if model.controls and choice.name not in model.controls:
            allowed = f"must be {', '.join(model.controls)}: this model has its own"
            raise InvalidRequest("control", choice.name, allowed)
        if choice.image is not None:
            allowed = "its image is opened by the client: send the pixels instead"
            raise InvalidRequest("control", choice.name, allowed)
    wanted = control_names(len(controls))
    for name, choice in zip(wanted, controls, strict=True):
        if name not in pictures:
            raise InvalidRequest("control", choice.name, "needs an image that steers it")
    if spare := [name for name in controls_of(pictures) if name not in wanted]:
        raise InvalidRequest("control", spare[0], "is a picture without an entry in control")


def check_number(images: int, model: ModelInfo, field: str = "image_path") -> None:
    """Raise InvalidRequest for more images than the model takes."""
    if images > (most := model.limits.max_images):
        allowed = f"at most {most} for this model ({model.family}: {', '.join(model.tasks)})"
        raise InvalidRequest(field, f"{images} images", allowed)


def strength_of(model: ModelInfo, pictures: Pictures) -> float | None:
    """Default strength of the model for a request with these inputs."""
    if "image" not in pictures and "video" not in pictures:
        return None
    return model.defaults.inpainting_strength if "mask" in pictures else model.defaults.strength


def output_frames(params: SamplingParams, model: ModelInfo, pictures: Pictures) -> int:
    """Frames of the output: as requested, else those of the input video that fit, or the model's.

    Raises InvalidRequest for a video that is longer than the model's outputs.
    """
    if params.num_frames is not None or "video" not in pictures:
        return _or(params.num_frames, model.defaults.num_frames)
    frames, most = pictures["video"].shape[0], model.limits.max_frames
    if frames > most:
        allowed = f"this model makes at most {most}; num_frames says how many of them it takes"
        raise InvalidRequest("video_path", f"{frames} frames", allowed)
    return fitting_frames(model, frames)


def output_size(params: SamplingParams, model: ModelInfo, pictures: Pictures) -> tuple[int, int]:
    """Output width and height in pixels: as requested, else derived from the video, the image or
    the model."""
    width, height = params.width, params.height
    both_asked = width is not None and height is not None
    shown = pictures.get("video") or _sizing_image(model, pictures)
    if shown is None or model.picture_size == "default" or both_asked:
        return _or(width, model.defaults.width), _or(height, model.defaults.height)
    rows, columns = shown.shape[-3:-1]
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
    longest = (model.limits.largest_side or model.limits.max_side) // step
    if width is None and height is None:  # both are smaller, in the image's shape
        scale = min(scale, longest * step / max(rows, columns))
    following = [max(1, min(counted(side * scale / step), longest)) for side in (columns, rows)]
    return _or(width, following[0] * step), _or(height, following[1] * step)


def _sizing_image(model: ModelInfo, pictures: Pictures) -> FrameHeader | None:
    """The image whose shape counts."""
    images = images_of(pictures)
    if not images:
        return pictures.get("last_image")
    return images[-1 if model.picture_size == "last" else 0]


def _or(asked: int | None, following: int) -> int:
    """Only None means unset: 0 was requested, and is refused later."""
    return following if asked is None else asked


def placeholder_inputs(model: ModelInfo) -> Pictures:
    """The smallest set of inputs that a request to the model must have."""
    if any(task in _FROM_NOISE for task in model.tasks):
        return {}
    size = (model.defaults.height, model.defaults.width)
    if model.tasks == (_FROM_VIDEO,):
        return {"video": FrameHeader((model.defaults.num_frames, *size, 3))}
    image, mask = FrameHeader((*size, 3)), FrameHeader(size)
    required = {field.removesuffix("_path"): image for field in model.required}
    masked = {"mask": mask} if model.tasks == ("inpainting",) else {}
    return {"image": image, **masked, **required}


def _kind(name: str) -> str:
    """`image` for `image_2`, `control` for `control_1`; other names are kinds of their own."""
    start, _, number = name.rpartition("_")
    return start if start in _NUMBERED and number.isdecimal() else name


def _check_shape(name: str, header: FrameHeader) -> None:
    kind = _kind(name)
    if kind not in _SHAPES:
        raise InvalidRequest("pictures", name, f"must be one of {', '.join(_SHAPES)}")
    wanted, shape = _SHAPES[kind], header.shape
    field = kind if kind == "control" else f"{kind}_path"
    channels = (3,) if wanted.endswith("3]") else ()
    sides = wanted.count(",") + 1 - len(channels)
    if len(shape[:sides]) != sides or shape[sides:] != channels or min(shape) < 1:
        raise InvalidRequest(field, list(shape), f"pixels must have shape {wanted}")
    if header.dtype != "uint8":
        raise InvalidRequest(field, header.dtype, "pixels must be uint8")
    most = MAX_VIDEO_BYTES if kind == "video" else MAX_CLIENT_FRAME_BYTES
    if header.nbytes > most:
        allowed = f"must be at most {most} bytes of pixels"
        raise InvalidRequest(field, list(shape), allowed)


def _check_tasks(model: ModelInfo, pictures: Pictures) -> None:
    tasks = ", ".join(model.tasks)
    from_noise = any(task in _FROM_NOISE for task in model.tasks)
    others = [task for task in model.tasks if task not in (*_FROM_NOISE, _FROM_VIDEO)]
    images = len(images_of(pictures))
    if images and not others:
        raise InvalidRequest("image_path", "a picture", f"{model.family} only supports {tasks}")
    check_number(images, model)
    if "video" in pictures and "video_path" not in model.parameters:
        raise InvalidRequest("video_path", "a video", f"{model.family} only supports {tasks}")
    steered = bool(model.controls and controls_of(pictures))
    if not from_noise and not images and not steered and "video" not in pictures:
        field = "image_path" if others else "video_path"
        raise InvalidRequest(field, None, f"required: {model.family} supports {tasks}")
    masks_video = "video" in pictures and "mask_path" in model.parameters
    if "mask" in pictures and "inpainting" not in model.tasks and not masks_video:
        raise InvalidRequest("mask_path", "a mask", f"{model.family} only supports {tasks}")
    if images and "mask" not in pictures and others == ["inpainting"]:
        raise InvalidRequest("mask_path", None, f"required: {model.family} paints inside a mask")


def _check_companions(model: ModelInfo, pictures: Pictures) -> None:
    """Raise InvalidRequest for inputs whose companion is missing, or that the model lacks."""
    if "mask" in pictures and not pictures.keys() & {"image", "video"}:
        raise InvalidRequest("mask_path", "a mask", "requires an input image")
    if "last_image" in pictures and "last_image_path" not in model.parameters:
        allowed = f"{model.family} takes no last frame ({', '.join(model.tasks)})"
        raise InvalidRequest("last_image_path", "a picture", allowed)
    for field in model.required:
        if field.removesuffix("_path") not in pictures:
            raise InvalidRequest(field, None, f"required for this model ({model.family})")
    if "last_image" in pictures and not ("image" in pictures or model.last_image_alone):
        raise InvalidRequest("last_image_path", "a picture", "requires a first frame in image_path")
    numbered = [name for name in pictures if _kind(name) == "image"]
    if len(numbered) != len(images_of(pictures)):
        raise InvalidRequest("pictures", numbered, "must be numbered image, image_2, image_3, …")
