"""Resizes input images for VAEs as diffusers' pipelines do."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor
from torch.nn import functional as F

InputImage = np.ndarray[Any, Any]

_IMAGES: Any = VaeImageProcessor(vae_scale_factor=1)
_MASKS: Any = VaeImageProcessor(
    vae_scale_factor=1, do_normalize=False, do_binarize=True, do_convert_grayscale=True
)


def fit_image(picture: InputImage, height: int, width: int) -> Tensor:
    """uint8 [h, w, 3] of any size -> [1, 3, height, width] in -1..1, stretched by Lanczos."""
    pixels: Tensor = _IMAGES.preprocess(PIL.Image.fromarray(picture), height, width)
    return pixels


def resized(picture: InputImage, height: int, width: int) -> PIL.Image.Image:
    """Resize uint8 [h, w, 3] by Lanczos, ignoring the aspect ratio."""
    image: PIL.Image.Image = _IMAGES.resize(PIL.Image.fromarray(picture), height, width)
    return image


def fit_mask(mask: InputImage, height: int, width: int) -> Tensor:
    """uint8 [h, w] of any size -> [1, 1, height, width], 0 or 1 (128 and above)."""
    fitted: Tensor = _MASKS.preprocess(PIL.Image.fromarray(mask), height, width)
    return fitted


def shrink_mask(mask: Tensor, pixels: int) -> Tensor:
    """[1, 1, H, W] -> [1, 1, H / pixels, W / pixels]: the first value of each square."""
    height, width = mask.shape[-2:]
    return F.interpolate(mask, (height // pixels, width // pixels))
