"""Pictures that a user names by path: opened here, never by the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.codec import MAX_CLIENT_FRAME_BYTES

if TYPE_CHECKING:
    import numpy as np

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_MODES = {"image": "RGB", "mask": "L"}
_MAX_PIXELS = MAX_CLIENT_FRAME_BYTES // 3

Pixels = Mapping[str, "np.ndarray[Any, Any]"]
"""`image` [H, W, 3], `mask` [H, W], uint8."""


def open_pictures(params: SamplingParams) -> tuple[SamplingParams, Pixels]:
    """The pictures that `params` names, and `params` without the names. Raises InvalidRequest."""
    pictures = {
        name: _read(f"{name}_path", path, mode)
        for name, mode in _MODES.items()
        if (path := getattr(params, f"{name}_path")) is not None
    }
    return replace(params, image_path=None, mask_path=None), pictures


def _read(field: str, path: str, mode: str) -> np.ndarray[Any, Any]:
    """Upright, as its EXIF says; without its alpha, as diffusers' `load_image` has it."""
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(Path(path).expanduser(), formats=FORMATS) as picture:
            if picture.width * picture.height > _MAX_PIXELS:
                size = f"{path} ({picture.width}x{picture.height})"
                raise InvalidRequest(field, size, f"must have at most {_MAX_PIXELS} pixels")
            return np.asarray(ImageOps.exif_transpose(picture).convert(mode))
    except UnidentifiedImageError as error:
        allowed = f"is not a picture of a known format ({', '.join(FORMATS)})"
        raise InvalidRequest(field, path, allowed) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InvalidRequest(field, path, f"can't be read: {reason}") from error
