"""Pictures that a MiniMax-H3 video is made of: its first and last frame, or references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import PIL.Image

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import TaskName
from multimodal_gen.messages.pictures import images_of
from multimodal_gen.runtime.models.vaes.input_images import InputImage, resized

Use = Literal["none", "frames", "references"]
End = Literal["image", "last_image"]
_RATIO = 4
"""Largest ratio of a reference's sides."""


def use_of(
    params: SamplingParams, pictures: Mapping[str, InputImage], tasks: Sequence[TaskName]
) -> Use:
    """Role of a request's pictures: several are references where a single one is the first frame,
    unless the request says otherwise. Raises InvalidRequest."""
    images, asked = images_of(pictures), params.image_use
    if "image-to-video" not in tasks:
        asked = asked or "reference"
    if not images:
        if asked == "reference":
            raise InvalidRequest("image_path", None, "required for reference-to-video")
        return "frames" if "last_image" in pictures else "none"
    if asked == "reference" or (len(images) > 1 and asked is None):
        if "reference-to-video" in tasks:
            if "last_image" in pictures:
                raise InvalidRequest("last_image_path", "a picture", "not allowed with references")
            return "references"
        if asked == "reference":
            raise InvalidRequest("image_use", asked, "this checkpoint has no transformer_ref")
    if asked == "frame" and "image-to-video" not in tasks:
        raise InvalidRequest("image_use", asked, "this checkpoint has no transformer")
    if len(images) > 1:
        allowed = "one image is the first frame"
        raise InvalidRequest("image_path", f"{len(images)} images", allowed)
    return "frames"


def ends_of(pictures: Mapping[str, InputImage]) -> list[End]:
    """Frames of the output that are given."""
    return [end for end in get_args(End) if end in pictures]


def fitted_frames(
    pictures: Mapping[str, InputImage], height: int, width: int
) -> list[PIL.Image.Image]:
    """The first and the last frame, as far as they are given: the one that comes first is
    stretched, the other is cut to its middle."""
    given, *others = (pictures[name] for name in ends_of(pictures))
    cut = [_cut(PIL.Image.fromarray(each), height, width) for each in others]
    return [resized(given, height, width), *cut]


def fitted_reference(picture: InputImage, short_edge: int, multiple: int) -> PIL.Image.Image:
    """A reference in its own shape. Raises InvalidRequest if that is too long."""
    rows, columns = picture.shape[:2]
    if max(rows, columns) > _RATIO * min(rows, columns):
        allowed = f"a reference's sides must be within 1:{_RATIO} and {_RATIO}:1"
        raise InvalidRequest("image_path", f"{columns} x {rows} pixels", allowed)
    scale = short_edge / min(rows, columns) / multiple
    height, width = (max(1, round(side * scale)) * multiple for side in (rows, columns))
    return resized(picture, height, width)


def _cut(image: PIL.Image.Image, height: int, width: int) -> PIL.Image.Image:
    scale = max(width / image.width, height / image.height)
    size = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    larger = image.resize(size, PIL.Image.Resampling.LANCZOS)
    return larger.crop((left, top, left + width, top + height))


def pixels_of(image: PIL.Image.Image) -> InputImage:
    """As a video of one frame, [1, H, W, 3]."""
    return np.asarray(image)[None]
