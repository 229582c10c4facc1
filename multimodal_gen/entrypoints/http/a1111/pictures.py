"""Decodes the input images of an img2img request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multimodal_gen.entrypoints.http.a1111.schema import Generation, ImageToImage
from multimodal_gen.entrypoints.http.media.pictures import bytes_of
from multimodal_gen.entrypoints.python.decoding import decode_picture
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.pictures import Pixels
from multimodal_gen.serving.service import NO_PIXELS

if TYPE_CHECKING:
    import numpy as np

_OPAQUE = 128


def pictures_of(body: Generation, max_pixels: int) -> Pixels:
    """Decode the images in `body`. Raises InvalidRequest."""
    if not isinstance(body, ImageToImage):
        return NO_PIXELS
    images = body.init_images or []
    if len(images) != 1:
        raise InvalidRequest("init_images", f"{len(images)} images", "must be one image")
    file = bytes_of(images[0], "init_images")
    pictures = {"image": decode_picture(file, "init_images", max_pixels=max_pixels)}
    if body.mask:
        mask = _mask(bytes_of(body.mask, "mask"), max_pixels)
        pictures["mask"] = 255 - mask if body.inpainting_mask_invert else mask
    return pictures


def _mask(file: bytes, max_pixels: int) -> np.ndarray[Any, Any]:
    """[H, W], white where the image changes: the opaque parts of a mask with transparency, the
    white parts of one without."""
    import numpy as np

    pixels = decode_picture(file, "mask", "RGBA", max_pixels=max_pixels)
    alpha = pixels[..., 3]
    if alpha.min() < 255:
        return np.where(alpha > _OPAQUE, 255, 0).astype(np.uint8)
    return decode_picture(file, "mask", "L", max_pixels=max_pixels)
