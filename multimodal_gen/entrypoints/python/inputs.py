"""Pictures and videos that a call from Python is given: paths, files in memory, PIL images or
arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, Union

from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.configs.user_path import UserPath
from multimodal_gen.entrypoints.python.arrays import picture_of, video_of
from multimodal_gen.entrypoints.python.decoding import (
    decode_mask,
    decode_picture,
    mask_pixels,
    picture_pixels,
)
from multimodal_gen.entrypoints.python.pictures import naming, open_picture, open_video
from multimodal_gen.entrypoints.python.video_decoding import decode_video
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.pictures import Pixels, control_names, named_images

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

ImageLike: TypeAlias = Union[UserPath, bytes, "Image", "np.ndarray[Any, Any]"]
"""A path, the bytes of an image file, a PIL image, or an array [H, W, 3], [H, W, 4] or [H, W] of
uint8, of bool, or of floats from 0 to 1."""
VideoLike: TypeAlias = Union[UserPath, bytes, "np.ndarray[Any, Any]", Sequence[ImageLike]]
"""A path, the bytes of a video file, an array [F, H, W, 3], or a list of frames."""


class InputKeywords(TypedDict, total=False):
    """Pictures and videos of a request."""

    image: ImageLike | Sequence[ImageLike] | None
    """Input image, or several in order."""
    images: Sequence[ImageLike] | None
    """Input images in order."""
    mask: ImageLike | None
    """Mask: white is repainted, black is kept."""
    last_image: ImageLike | None
    """Last frame of the video."""
    video: VideoLike | None
    """Video to start from or to follow."""


PATHS = {
    "image": "image_path",
    "images": "image_path",
    "mask": "mask_path",
    "last_image": "last_image_path",
    "video": "video_path",
}
"""Inputs, and the parameters that give them by path."""


def take_inputs(given: Mapping[str, Any]) -> tuple[dict[str, Any], Pixels]:
    """Split keywords into sampling parameters and decoded inputs. Raises InvalidRequest."""
    _refuse_two_names(given)
    params = {name: value for name, value in given.items() if name not in PATHS}
    pixels: dict[str, np.ndarray[Any, Any]] = {}
    for name in PATHS:
        if (value := given.get(name)) is None:
            continue
        params[PATHS[name]] = None
        if name in ("image", "images"):
            pixels |= named_images(_pixels(each, name) for each in _listed(value))
        else:
            convert = _video if name == "video" else _pixels
            pixels[name] = convert(value, name)
    if (control := given.get("control")) is not None:
        params["control"], shown = _split_controls(control)
        pixels |= shown
    return params, pixels


def _refuse_two_names(given: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for an input that is given by two keywords."""
    first: dict[str, str] = {}
    for name in (*PATHS, *PATHS.values()):
        if given.get(name) is None:
            continue
        path = PATHS.get(name, name)
        if first.setdefault(path, name) != name:
            raise InvalidRequest(name, given[name], f"can't be combined with {first[path]}")


def _split_controls(given: Any) -> tuple[list[Any], Pixels]:
    """Return the controls without pictures that are no paths, and those pictures."""
    choices = _listed(given)
    pixels: dict[str, np.ndarray[Any, Any]] = {}
    without = []
    for name, choice in zip(control_names(len(choices)), choices, strict=True):
        image = _image_of(choice)
        if image is None or isinstance(image, str | os.PathLike):
            without.append(choice)
            continue
        pixels[name] = _pixels(image, "control")
        is_mapping = isinstance(choice, Mapping)
        without.append({**choice, "image": None} if is_mapping else replace(choice, image=None))
    return without, pixels


def _image_of(choice: object) -> object:
    if isinstance(choice, Mapping):
        return choice.get("image")
    return choice.image if isinstance(choice, ControlChoice) else None


def _listed(given: Any) -> Sequence[Any]:
    return given if isinstance(given, list | tuple) else (given,)


def _pixels(given: object, field: str) -> np.ndarray[Any, Any]:
    """uint8 [H, W, 3], or [H, W] of a mask."""
    is_mask = field == "mask"
    if isinstance(given, str | os.PathLike):
        return open_picture(field, given)
    if isinstance(given, bytes):
        with naming(field, given):
            return (decode_mask if is_mask else decode_picture)(given, field)
    return (mask_pixels if is_mask else picture_pixels)(picture_of(given, field), field)


def _video(given: object, field: str) -> np.ndarray[Any, Any]:
    """uint8 [F, H, W, 3]."""
    if isinstance(given, str | os.PathLike):
        return open_video(field, given)
    if isinstance(given, bytes):
        with naming(field, given):
            return decode_video(given, field)
    if isinstance(given, list | tuple):
        return video_of([_pixels(frame, field) for frame in given], field)
    return video_of(given, field)
