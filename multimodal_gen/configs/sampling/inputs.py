"""Parameters of input images and videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from multimodal_gen.configs.parameter_spec import ParameterSpec

ImageUse = Literal["frame", "reference"]


@dataclass(frozen=True, kw_only=True)
class InputParameters:
    """Declares input images and videos, and their use."""

    image_path: Annotated[
        tuple[str, ...] | None,
        ParameterSpec(
            help="Input images, in order",
            needs=("image_model",),
            local=True,
            keyword_type="UserPath | Sequence[UserPath]",
        ),
    ] = None
    last_image_path: Annotated[
        str | None,
        ParameterSpec(
            help="Last frame of the video",
            needs=("parameter", "image"),
            local=True,
            keyword_type="UserPath",
        ),
    ] = None
    mask_path: Annotated[
        str | None,
        ParameterSpec(
            help="Mask: white is repainted, black is kept",
            needs=("image",),
            local=True,
            keyword_type="UserPath",
        ),
    ] = None
    image_use: Annotated[
        ImageUse | None,
        ParameterSpec(
            help="Role of the image in a video",
            needs=("parameter", "image"),
            default="one image is the first frame, several are references",
        ),
    ] = None
    video_path: Annotated[
        str | None,
        ParameterSpec(
            help="Video to start from or to follow",
            needs=("parameter",),
            local=True,
            keyword_type="UserPath",
        ),
    ] = None
    conditioning_scale: Annotated[
        float | None,
        ParameterSpec(
            help="Weight of control video and references",
            lowest=0,
            highest=10,
            needs=("parameter", "image"),
            model_default=True,
        ),
    ] = None
    strength: Annotated[
        float | None,
        ParameterSpec(
            help="Share of the image to replace",
            lowest=0,
            highest=1,
            exclusive=True,
            needs=("image",),
            default="the model's; with a mask, its inpainting_strength",
            model_default=True,
        ),
    ] = None
    keep_unmasked: Annotated[
        bool,
        ParameterSpec(
            help="Keep the image exactly where the mask is black; grey blends",
            needs=("mask",),
        ),
    ] = False
