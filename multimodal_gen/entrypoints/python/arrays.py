"""Turns arrays that a call from Python is given into pictures and videos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multimodal_gen.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

_PICTURE = "must be a path, the bytes of a file, a PIL image or a NumPy array"
_VIDEO = "must be a path, the bytes of a file, a NumPy array or a list of frames"
_SHAPE = "must have shape [height, width, 3], [height, width, 4] or [height, width]"
_NUMBERS = "must be uint8 (0 to 255), bool, or floats from 0 to 1"
_CHANNELS = (3, 4)
_ROUNDING = 1e-3
"""Excess of a float over 0 to 1 that interpolation may cause."""


def picture_of(given: object, field: str) -> Image:
    """Return a PIL image as it is, or make one of an array. Raises InvalidRequest."""
    import numpy as np
    from PIL import Image

    if isinstance(given, Image.Image):
        return given
    if not isinstance(given, np.ndarray):
        raise InvalidRequest(field, given, _PICTURE + _hint(given))
    array = given[..., 0] if given.ndim == 3 and given.shape[2] == 1 else given
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in _CHANNELS)
    if not is_picture or not array.size:
        raise InvalidRequest(field, given, _SHAPE + _about_shape(given, field))
    return Image.fromarray(_bytes_of(array, field))


def video_of(given: object, field: str) -> np.ndarray[Any, Any]:
    """uint8 [F, H, W, 3] of an array or of frames. Raises InvalidRequest."""
    import numpy as np

    if isinstance(given, list):
        if len({frame.shape for frame in given}) != 1:
            allowed = "must have frames, all of one size"
            raise InvalidRequest(field, f"{len(given)} frames", allowed)
        given = np.stack(given)
    if not isinstance(given, np.ndarray):
        raise InvalidRequest(field, given, _VIDEO)
    if given.ndim != 4 or given.shape[3] != 3 or not given.size:
        raise InvalidRequest(field, given, "must have shape [frames, height, width, 3]")
    return _bytes_of(given, field)


def _bytes_of(array: np.ndarray[Any, Any], field: str) -> np.ndarray[Any, Any]:
    """A contiguous array of uint8. Raises InvalidRequest for numbers out of range."""
    import numpy as np

    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    elif np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # nor is one NaN
            raise InvalidRequest(field, array, f"{_NUMBERS}; it has {low:g} to {high:g}")
        array = (array.clip(0, 1) * 255).round().astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InvalidRequest(field, array, f"{_NUMBERS}: use .astype('uint8')")
    return np.ascontiguousarray(array)


def _about_shape(array: np.ndarray[Any, Any], field: str) -> str:
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        return ": move the channels last with np.moveaxis(array, 0, -1)"
    return f": give several in a list, {field}=[…]" if array.ndim == 4 else ""


def _hint(given: object) -> str:
    """The call that turns what was given into a picture, if it is of a kind that has one."""
    if hasattr(given, "images"):
        return ": of a result, use result.images[0]"
    if hasattr(given, "numpy"):
        return ": of a tensor [3, H, W], use tensor.permute(1, 2, 0).cpu().numpy()"
    return ": of an open file, use file.read()" if hasattr(given, "read") else ""
