"""Encodes pixels as PNG, JPEG and WebP."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from multimodal_gen.postprocess import metadata

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

ImageFormat = Literal["png", "jpeg", "webp"]
QUALITY = 95
"""Default quality of JPEG and WebP, 1 to 100."""
NO_TEXT: Mapping[str, str] = MappingProxyType({})


def to_pil(pixels: NDArray[np.uint8]) -> Image:
    """Convert uint8 [H, W, 3] to a PIL image."""
    from PIL import Image

    return Image.fromarray(pixels)


def encode_image(
    pixels: NDArray[np.uint8],
    format: ImageFormat,
    recipe: metadata.Recipe | None = None,
    quality: int = QUALITY,
    text: Mapping[str, str] = NO_TEXT,
) -> bytes:
    """Encode uint8 [H, W, 3] as a file. `quality` only affects JPEG and WebP. `text` is added, by
    its keys, to a PNG that has a recipe."""
    out = io.BytesIO()
    to_pil(pixels).save(out, format, **_options(format, recipe, quality, text))
    return out.getvalue()


def _options(
    format: ImageFormat, recipe: metadata.Recipe | None, quality: int, text: Mapping[str, str]
) -> dict[str, Any]:
    if format == "png":
        return _png_text(recipe, text)
    options: dict[str, Any] = {"quality": quality}
    if recipe is not None:
        options["exif"] = _exif(recipe)
    return options


def _png_text(recipe: metadata.Recipe | None, text: Mapping[str, str]) -> dict[str, Any]:
    from PIL.PngImagePlugin import PngInfo

    if recipe is None:
        return {}
    info = PngInfo()
    info.add_text(metadata.INFOTEXT_KEY, recipe.infotext())
    info.add_text(metadata.JSON_KEY, recipe.to_json())
    for key, value in text.items():
        info.add_text(key, value)
    return {"pnginfo": info}


def _exif(recipe: metadata.Recipe) -> bytes:
    from PIL import Image

    exif = Image.Exif()
    exif[metadata.SOFTWARE] = f"multimodal_gen {recipe.version}"
    exif[metadata.IMAGE_DESCRIPTION] = recipe.to_json()
    comment = b"UNICODE\0" + recipe.infotext().encode("utf-16-be")
    exif.get_ifd(metadata.EXIF_IFD)[metadata.USER_COMMENT] = comment
    return exif.tobytes()
