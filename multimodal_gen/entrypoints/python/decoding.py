"""Safely decodes untrusted images: from clients and from files that users name."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, Literal

from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.codec import MAX_CLIENT_FRAME_BYTES

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""For a GIF, the first image is used."""
MAX_INPUT_PIXELS = 50_000_000
_MAX_SENT = MAX_CLIENT_FRAME_BYTES // 3
"""Maximum pixels that the engine accepts; larger images are shrunk."""

Mode = Literal["RGB", "L", "RGBA"]


def decode_picture(
    data: bytes, field: str, mode: Mode = "RGB", *, max_pixels: int = MAX_INPUT_PIXELS
) -> np.ndarray[Any, Any]:
    """uint8 [H, W, 3] (RGB, without alpha), [H, W] (L) or [H, W, 4], rotated by its EXIF.

    The format is determined by content, and the size is checked before pixels are decoded. Raises
    InvalidRequest for data that is not an image, damaged or too large.
    """
    import numpy as np

    return np.asarray(_open(data, field, max_pixels).convert(mode))


def decode_mask(
    data: bytes, field: str, *, max_pixels: int = MAX_INPUT_PIXELS
) -> np.ndarray[Any, Any]:
    """uint8 [H, W], white where the image changes.

    A mask with transparency changes transparent parts, as in OpenAI's API; one without changes
    white parts. Raises InvalidRequest.
    """
    import numpy as np

    picture = _open(data, field, max_pixels)
    if not picture.has_transparency_data:
        return np.asarray(picture.convert("L"))
    alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    if alpha.min() < 255:
        return np.ascontiguousarray(255 - alpha)
    return np.asarray(picture.convert("RGB").convert("L"))


def _open(data: bytes, field: str, max_pixels: int) -> Image:
    from PIL import Image, ImageOps

    shown = f"{len(data)} bytes"
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > max_pixels:
                size = f"{picture.width}x{picture.height}"
                raise InvalidRequest(field, size, f"must have at most {max_pixels} pixels")
            return _fitting(_eight_bits(ImageOps.exif_transpose(picture)))
    except InvalidRequest:
        raise
    except Exception:
        # For crafted files Pillow raises exceptions of any type, and their messages may contain
        # addresses.
        allowed = "can't be read as an image (PNG, JPEG, WebP, GIF, BMP)"
        raise InvalidRequest(field, shown, allowed) from None


def _eight_bits(picture: Image) -> Image:
    """Scale 16-bit grey, which Pillow would clip at 255."""
    import numpy as np
    from PIL import Image

    if not picture.mode.startswith("I;16"):
        return picture
    return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))


def _fitting(picture: Image) -> Image:
    factor = math.ceil(math.sqrt(picture.width * picture.height / _MAX_SENT))
    if factor <= 1:
        return picture
    if picture.mode == "P":
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    return (picture.convert("L") if picture.mode == "1" else picture).reduce(factor)
