"""Opens images and videos that a user names by path; the engine never opens them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.user_path import UserPath, user_path
from multimodal_gen.entrypoints.python.decoding import decode_mask, decode_picture
from multimodal_gen.entrypoints.python.video_decoding import decode_video
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.pictures import Pixels, control_names, named_images

if TYPE_CHECKING:
    import numpy as np

_MASKS = ("mask_path", "mask")
_NO_PATHS = {"image_path": None, "last_image_path": None, "mask_path": None, "video_path": None}
_URLS = ("http://", "https://", "data:")


def open_picture(field: str, path: UserPath) -> np.ndarray[Any, Any]:
    """Return the pixels of the file that `image_path` or another field gives. Raises
    InvalidRequest."""
    decode = decode_mask if field in _MASKS else decode_picture
    with naming(field, str(path)):
        return decode(_read(field, path), field)


def open_video(field: str, path: UserPath, frames: int | None = None) -> np.ndarray[Any, Any]:
    """Return the pixels of a video file, or of its first `frames`. Raises InvalidRequest."""
    with naming(field, str(path)):
        return decode_video(_read(field, path), field, frames=frames)


def open_pictures(
    params: SamplingParams, opened: Callable[[str, str], np.ndarray[Any, Any]] = open_picture
) -> tuple[SamplingParams, Pixels]:
    """Return `params` without its paths, and the decoded images and video. Raises
    InvalidRequest."""
    images = named_images(opened("image_path", path) for path in params.image_path or ())
    others = {
        field.removesuffix("_path"): opened(field, path)
        for field in ("last_image_path", "mask_path")
        if (path := getattr(params, field)) is not None
    }
    if (video := params.video_path) is not None:
        others["video"] = open_video("video_path", video, params.num_frames)
    for name, choice in zip(control_names(len(params.control)), params.control, strict=True):
        if choice.image is not None:
            others[name] = opened("control", choice.image)
    sent = tuple(replace(choice, image=None) for choice in params.control)
    return params.updated(**_NO_PATHS, control=sent), {**images, **others}


@contextmanager
def naming(field: str, given: object) -> Iterator[None]:
    """Change an InvalidRequest about the content of a file to name what was given."""
    try:
        yield
    except InvalidRequest as error:
        _, _, allowed = error.message.partition(": ")
        raise InvalidRequest(field, given, allowed) from error


def _read(field: str, path: UserPath) -> bytes:
    if str(path).startswith(_URLS):
        raise InvalidRequest(field, path, "must be a file: URLs are not fetched")
    try:
        return user_path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(field, path, f"can't be read: {reason}") from error
