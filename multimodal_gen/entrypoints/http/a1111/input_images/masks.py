"""Masks of img2img requests, and what is put under them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multimodal_gen.entrypoints.http.a1111.schema import ImageToImage
from multimodal_gen.entrypoints.http.media.pictures import bytes_of
from multimodal_gen.entrypoints.python.decoding import decode_picture
from multimodal_gen.errors import InvalidRequest

if TYPE_CHECKING:
    from PIL.Image import Image

_OPAQUE = 128
_REPAINTED = 128
"""Lowest level of a mask that the engine repaints."""
_FILL_PASSES = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2))
"""(radius in pixels, number of times that the blurred image is laid over)"""
_DEFAULT_BLUR = 4
_MAX_BLUR = 256


def mask_of(body: ImageToImage, mask: str, max_pixels: int) -> Image:
    """Decode a mask as grey, white where the image changes, with soft edges. Raises
    InvalidRequest."""
    from PIL import ImageFilter, ImageOps

    blur = _blur(body)
    image = _decoded(bytes_of(mask, "mask"), max_pixels)
    if body.inpainting_mask_invert:
        image = ImageOps.invert(image)
    return image.filter(ImageFilter.GaussianBlur(blur))


def filled(image: Image, mask: Image) -> Image:
    """Replace what a mask repaints by colors from around it: blurred copies of the rest of the
    image, from coarse to fine."""
    from PIL import Image, ImageFilter, ImageOps

    rest = image.convert("RGBA")
    rest.putalpha(ImageOps.invert(mask))
    kept = Image.new("RGBa", image.size)
    kept.paste(rest.convert("RGBa"))
    colors = Image.new("RGBA", image.size)
    for radius, times in _FILL_PASSES:
        blurred = kept.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            colors.alpha_composite(blurred)
    result = image.copy()
    result.paste(colors.convert("RGB"), mask=mask.point(lambda level: 255 * (level >= _REPAINTED)))
    return result


def _decoded(file: bytes, max_pixels: int) -> Image:
    """White are the opaque parts of a mask with transparency, the white parts of one without."""
    import numpy as np
    from PIL import Image

    alpha = decode_picture(file, "mask", "RGBA", max_pixels=max_pixels)[..., 3]
    if alpha.min() < 255:
        return Image.fromarray(np.where(alpha > _OPAQUE, 255, 0).astype(np.uint8))
    return Image.fromarray(decode_picture(file, "mask", "L", max_pixels=max_pixels))


def _blur(body: ImageToImage) -> tuple[float, float]:
    """Standard deviations across and down, in pixels."""
    given = {name: getattr(body, name) for name in ("mask_blur", "mask_blur_x", "mask_blur_y")}
    for name, value in given.items():
        if value is not None and not 0 <= value <= _MAX_BLUR:
            raise InvalidRequest(name, value, f"must be 0 to {_MAX_BLUR}")
    both = _DEFAULT_BLUR if body.mask_blur is None else body.mask_blur
    across, down = given["mask_blur_x"], given["mask_blur_y"]
    return both if across is None else across, both if down is None else down
