"""Decodes the input images of an img2img request."""

from __future__ import annotations

from multimodal_gen.entrypoints.http.a1111.masks import mask_of
from multimodal_gen.entrypoints.http.a1111.schema import Generation, ImageToImage
from multimodal_gen.entrypoints.http.media.pictures import bytes_of
from multimodal_gen.entrypoints.python.decoding import decode_picture
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.pictures import Pixels
from multimodal_gen.serving.service import NO_PIXELS


def pictures_of(body: Generation, max_pixels: int) -> Pixels:
    """Decode the images in `body`. Raises InvalidRequest."""
    import numpy as np

    if not isinstance(body, ImageToImage):
        return NO_PIXELS
    images = body.init_images or []
    if len(images) != 1:
        raise InvalidRequest("init_images", f"{len(images)} images", "must be one image")
    file = bytes_of(images[0], "init_images")
    pictures = {"image": decode_picture(file, "init_images", max_pixels=max_pixels)}
    if body.mask:
        pictures["mask"] = np.asarray(mask_of(body, body.mask, max_pixels))
    return pictures
