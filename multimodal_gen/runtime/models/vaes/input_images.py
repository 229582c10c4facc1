"""Resizes input images for VAEs as diffusers' pipelines do."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor
from torch.nn import functional as F

InputImage = np.ndarray[Any, Any]

_VACE_MULTIPLE = 8
"""Of the sides of reference images, in pixels: those of a latent."""
_IMAGES: Any = VaeImageProcessor(vae_scale_factor=1)
_CONTROLS: Any = VaeImageProcessor(vae_scale_factor=1, do_normalize=False)
_MASKS: Any = VaeImageProcessor(
    vae_scale_factor=1, do_normalize=False, do_binarize=True, do_convert_grayscale=True
)


def fit_image(picture: InputImage, height: int, width: int) -> Tensor:
    """uint8 [h, w, 3] or [h, w] of any size -> [1, 3 or 1, height, width] in -1..1, stretched by
    Lanczos."""
    pixels: Tensor = _IMAGES.preprocess(PIL.Image.fromarray(picture), height, width)
    return pixels


def fit_control(picture: InputImage, height: int, width: int) -> Tensor:
    """uint8 [h, w, 3] of any size -> [1, 3, height, width] in 0..1, stretched by Lanczos."""
    pixels: Tensor = _CONTROLS.preprocess(PIL.Image.fromarray(picture), height, width)
    return pixels


def fit_video(video: InputImage, height: int, width: int) -> Tensor:
    """uint8 [F, h, w, 3] of any size -> [1, 3, F, height, width], each frame like `fit_image`."""
    return torch.stack([fit_image(frame, height, width) for frame in video], dim=2)


def on_white(picture: InputImage, height: int, width: int) -> Tensor:
    """uint8 [h, w, 3] of any size -> [1, 3, height, width] in -1..1: the whole image as large as
    possible, in the middle of white, as diffusers' WanVACEPipeline fits it."""
    rows, columns = (side // _VACE_MULTIPLE * _VACE_MULTIPLE for side in picture.shape[:2])
    pixels = fit_image(picture, rows, columns)
    scale = min(height / rows, width / columns)
    size = int(rows * scale), int(columns * scale)
    pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False)
    canvas = torch.ones(1, 3, height, width)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    canvas[:, :, top : top + size[0], left : left + size[1]] = pixels
    return canvas


def resized(picture: InputImage, height: int, width: int) -> PIL.Image.Image:
    """Resize uint8 [h, w, 3] by Lanczos, ignoring the aspect ratio."""
    image: PIL.Image.Image = _IMAGES.resize(PIL.Image.fromarray(picture), height, width)
    return image


def cropped(picture: InputImage, height: int, width: int) -> PIL.Image.Image:
    """Resize uint8 [h, w, 3] by Lanczos, keeping the aspect ratio, and cut what is beyond."""
    pixels = PIL.Image.fromarray(picture)
    image: PIL.Image.Image = _IMAGES.resize(pixels, height, width, resize_mode="crop")
    return image


def fit_mask(mask: InputImage, height: int, width: int) -> Tensor:
    """uint8 [h, w] of any size -> [1, 1, height, width], 0 or 1 (128 and above)."""
    fitted: Tensor = _MASKS.preprocess(PIL.Image.fromarray(mask), height, width)
    return fitted


def shrink_mask(mask: Tensor, pixels: int) -> Tensor:
    """[1, 1, H, W] -> [1, 1, H / pixels, W / pixels]: the first value of each square."""
    height, width = mask.shape[-2:]
    return F.interpolate(mask, (height // pixels, width // pixels))
