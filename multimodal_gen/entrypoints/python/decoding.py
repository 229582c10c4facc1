"""Safely decodes untrusted images: from clients and from files that users name."""

from __future__ import annotations

import io
import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from multimodal_gen.errors import InvalidRequest, QueueFull
from multimodal_gen.messages.codec import MAX_CLIENT_FRAME_BYTES

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
"""For a GIF or TIFF, the first image is used."""
MAX_INPUT_PIXELS = 50_000_000
_MAX_SENT = MAX_CLIENT_FRAME_BYTES // 3
"""Maximum pixels that the engine accepts; larger images are shrunk."""
DECODING_BYTES = 24
"""Memory per pixel while an image is decoded and converted, at most: several copies of RGBA."""
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})

Mode = Literal["RGB", "L", "RGBA"]
T = TypeVar("T")


class PictureMemory(Protocol):
    """Counts the memory of one image."""

    def take(self, size: int) -> None:
        """Raises QueueFull if other images leave no room for `size` bytes."""

    def close(self) -> None:
        """Give everything back."""


picture_memory: ContextVar[Callable[[], PictureMemory] | None] = ContextVar(
    "picture_memory", default=None
)
"""Counts the images of a server's clients; None: not counted."""


def decode_picture(
    data: bytes, field: str, mode: Mode = "RGB", *, max_pixels: int = MAX_INPUT_PIXELS
) -> np.ndarray[Any, Any]:
    """uint8 [H, W, 3] (RGB, without alpha), [H, W] (L) or [H, W, 4], rotated by its EXIF.

    The format is determined by content, and the size is checked before pixels are decoded. Raises
    InvalidRequest for data that is not an image, damaged or too large, QueueFull.
    """
    return counted(lambda memory: _array(_open(data, field, max_pixels, memory), mode))


def decode_mask(
    data: bytes, field: str, *, max_pixels: int = MAX_INPUT_PIXELS
) -> np.ndarray[Any, Any]:
    """uint8 [H, W], white where the image changes.

    A mask with transparency changes transparent parts, as in OpenAI's API; one without changes
    white parts. Raises InvalidRequest, QueueFull.
    """
    return counted(lambda memory: _mask_of(_open(data, field, max_pixels, memory)))


def picture_pixels(picture: Image, field: str) -> np.ndarray[Any, Any]:
    """uint8 [H, W, 3] of an image in memory, as `decode_picture` returns it of a file."""
    return _array(_prepared(picture, field), "RGB")


def mask_pixels(picture: Image, field: str) -> np.ndarray[Any, Any]:
    """uint8 [H, W] of an image in memory, as `decode_mask` returns it of a file."""
    return _mask_of(_prepared(picture, field))


def _prepared(picture: Image, field: str) -> Image:
    from PIL import ImageOps

    with _refusing_damaged(field, picture):
        _check_size(picture, field, MAX_INPUT_PIXELS)
        return _fitting(_eight_bits(ImageOps.exif_transpose(picture)))


def _array(picture: Image, mode: Mode) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.asarray(picture.convert(mode))


def _mask_of(picture: Image) -> np.ndarray[Any, Any]:
    import numpy as np

    if not picture.has_transparency_data:
        return np.asarray(picture.convert("L"))
    alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    if alpha.min() < 255:
        return np.ascontiguousarray(255 - alpha)
    return np.asarray(picture.convert("RGB").convert("L"))


def counted(decode: Callable[[PictureMemory | None], np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Decode with the memory that it takes. That of the array counts until it is freed."""
    counting = picture_memory.get()
    if counting is None:
        return decode(None)
    decoding = counting()
    try:
        pixels = decode(decoding)
    finally:
        decoding.close()
    return count_until_freed(pixels, pixels.nbytes)


def count_until_freed(image: T, size: int) -> T:
    """Return an image whose `size` bytes count until it is freed. Raises QueueFull."""
    if (counting := picture_memory.get()) is not None:
        kept = counting()
        kept.take(size)
        weakref.finalize(image, kept.close)
    return image


def _open(data: bytes, field: str, max_pixels: int, memory: PictureMemory | None) -> Image:
    from PIL import Image, ImageOps

    with _refusing_damaged(field, f"{len(data)} bytes"):
        _support_heic(data, field)
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            count = _check_size(picture, field, max_pixels)
            if memory is not None:
                memory.take(DECODING_BYTES * count)
            picture.load()
            ImageOps.exif_transpose(picture, in_place=True)  # the other way always copies
            return _fitting(_eight_bits(picture))


def _check_size(picture: Image, field: str, max_pixels: int) -> int:
    """Return the number of pixels. Raises InvalidRequest for too many."""
    count = picture.width * picture.height
    if count > max_pixels:
        size = f"{picture.width}x{picture.height}"
        raise InvalidRequest(field, size, f"must have at most {max_pixels} pixels")
    return count


@contextmanager
def _refusing_damaged(field: str, shown: object) -> Iterator[None]:
    try:
        yield
    except (InvalidRequest, QueueFull):
        raise
    except Exception:
        # For crafted files Pillow raises exceptions of any type, and their messages may contain
        # addresses.
        allowed = "can't be read as an image (PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF, HEIC)"
        raise InvalidRequest(field, shown, allowed) from None


def _support_heic(data: bytes, field: str) -> None:
    """Load the decoder for HEIC, which phones send. Raises InvalidRequest if it is missing."""
    if not is_heic(data):
        return
    try:
        import pillow_heif
    except ImportError:
        allowed = (
            "HEIC needs pillow-heif: install multimodal-gen with its extra, multimodal-gen[heic]"
        )
        raise InvalidRequest(field, f"{len(data)} bytes", allowed) from None
    pillow_heif.register_heif_opener()


def is_heic(data: bytes) -> bool:
    """True if a file says that it has HEVC images; AVIF has the same container."""
    brands = {data[start : start + 4] for start in range(8, 64, 4)}
    return data[4:8] == b"ftyp" and not _HEIC_BRANDS.isdisjoint(brands)


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
