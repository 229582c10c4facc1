"""Resizes reference images for FLUX.2 as diffusers' Flux2ImageProcessor does."""

from __future__ import annotations

import math
from typing import Any

import PIL.Image
from diffusers.pipelines.flux2.image_processor import Flux2ImageProcessor
from torch import Tensor

from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.models.vaes.input_images import InputImage

_MOST = 1024 * 1024  # pixels; larger images are shrunk

_PROCESSOR: Any = Flux2ImageProcessor(vae_scale_factor=1)


def reference_size(picture: InputImage, multiple: int) -> tuple[int, int]:
    """Height and width at which an image is encoded for the model."""
    height, width = _shrunk_size(picture)
    return height // multiple * multiple, width // multiple * multiple


def crop_reference(picture: InputImage, multiple: int) -> Tensor:
    """uint8 [h, w, 3] -> [1, 3, H, W] in -1..1: shrunk if too large, then cropped at the centre.

    Raises InvalidRequest for an image that is too small or too narrow.
    """
    image = PIL.Image.fromarray(picture)
    try:
        _PROCESSOR.check_image_input(image)
    except ValueError as error:
        raise InvalidRequest("image_path", f"{image.width}x{image.height}", str(error)) from error
    height, width = reference_size(picture, multiple)
    pixels: Tensor = _PROCESSOR.preprocess(
        at_most_shown(picture), height, width, resize_mode="crop"
    )
    return pixels


def at_most_shown(picture: InputImage) -> PIL.Image.Image:
    """Shrink an image uint8 [h, w, 3] to the largest size that the model encodes."""
    image = PIL.Image.fromarray(picture)
    height, width = _shrunk_size(picture)
    if (width, height) == image.size:
        return image
    return image.resize((width, height), PIL.Image.Resampling.LANCZOS)


def _shrunk_size(picture: InputImage) -> tuple[int, int]:
    height, width = picture.shape[:2]
    if height * width <= _MOST:
        return height, width
    scale = math.sqrt(_MOST / (width * height))
    return int(height * scale), int(width * scale)
