"""Opens images and videos that a user names by path; the engine never opens them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.entrypoints.python.decoding import decode_mask, decode_picture
from multimodal_gen.entrypoints.python.video_decoding import decode_video
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.pictures import Pixels, control_names, named_images

if TYPE_CHECKING:
    import numpy as np

_DECODERS = {
    "image_path": decode_picture,
    "last_image_path": decode_picture,
    "mask_path": decode_mask,
    "control": decode_picture,
}
_NO_PATHS = {"image_path": None, "last_image_path": None, "mask_path": None, "video_path": None}


def open_picture(field: str, path: str) -> np.ndarray[Any, Any]:
    """Return the pixels of the file that `image_path` or another field gives. Raises
    InvalidRequest."""
    data = _read(field, path)
    with _naming_file(field, path):
        return _DECODERS[field](data, field)


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
        file = _read("video_path", video)
        with _naming_file("video_path", video):
            others["video"] = decode_video(file, "video_path", frames=params.num_frames)
    for name, choice in zip(control_names(len(params.control)), params.control, strict=True):
        if choice.image is not None:
            others[name] = opened("control", choice.image)
    sent = tuple(replace(choice, image=None) for choice in params.control)
    return params.updated(**_NO_PATHS, control=sent), {**images, **others}


@contextmanager
def _naming_file(field: str, path: str) -> Iterator[None]:
    """Change an InvalidRequest about the content of a file to name the file."""
    try:
        yield
    except InvalidRequest as error:
        _, _, allowed = error.message.partition(": ")
        raise InvalidRequest(field, path, allowed) from error


def _read(field: str, path: str) -> bytes:
    try:
        return user_path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(field, path, f"can't be read: {reason}") from error
