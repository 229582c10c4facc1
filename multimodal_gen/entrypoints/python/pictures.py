"""Opens images that a user names by path; the engine never opens them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.entrypoints.python.decoding import decode_mask, decode_picture
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.pictures import Pixels

if TYPE_CHECKING:
    import numpy as np

_DECODERS = {"image": decode_picture, "mask": decode_mask}


def open_picture(name: str, path: str) -> np.ndarray[Any, Any]:
    """Return the pixels of an `image` or `mask`. Raises InvalidRequest."""
    return _DECODERS[name](_read(f"{name}_path", path), f"{name}_path")


def open_pictures(
    params: SamplingParams, opened: Callable[[str, str], np.ndarray[Any, Any]] = open_picture
) -> tuple[SamplingParams, Pixels]:
    """Return `params` without its image paths, and the decoded images. Raises InvalidRequest."""
    pictures = {
        name: opened(name, path)
        for name in _DECODERS
        if (path := getattr(params, f"{name}_path")) is not None
    }
    return replace(params, image_path=None, mask_path=None), pictures


def _read(field: str, path: str) -> bytes:
    try:
        return user_path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(field, path, f"can't be read: {reason}") from error
