"""What a loaded model is and allows: plain data, so that requests can be checked without torch."""

from __future__ import annotations

from typing import Literal

import msgspec

from multimodal_gen.messages.model_defaults import Defaults as Defaults

MAX_SEED = 2**63 - 1

TaskName = Literal[
    "text-to-image",
    "image-to-image",
    "inpainting",
    "image-edit",
    "text-to-video",
    "image-to-video",
]
"""image-to-image and inpainting start from a picture, by strength; image-edit and image-to-video
show it to the model."""

PictureSize = Literal["default", "own", "within", "area"]
"""How large an output is whose request has a picture and no size: as the defaults say; as the
picture; as the picture, but of no more pixels than the defaults; or of the picture's shape and
about as many pixels as the defaults."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The largest request that is let in."""

    max_pixels: int = 2048 * 2048
    max_side: int = 4096
    max_frames: int = 1
    max_steps: int = 1000
    max_outputs: int = 16
    max_loras: int = 8
    max_sequence_length: int | None = None
    max_prompt_characters: int = 32_000


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What `Ready` tells a client about the model behind it."""

    name: str
    """What the operator called it: a hub name or the last part of a path."""
    family: str
    tasks: tuple[TaskName, ...]
    defaults: Defaults
    limits: Limits
    size_multiple: int
    """Width and height must be multiples of it."""
    picture_size: PictureSize = "area"
    frame_multiple: int = 1
    """num_frames must be 1 more than a multiple of it."""
    parameters: tuple[str, ...] = ()
    """The optional sampling parameters that mean something to this model."""
    schedulers: tuple[str, ...] = ()
    """Short names that `scheduler` may take; the first is the checkpoint's own."""
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def max_seed(self) -> int:
        """The largest seed of a request: that of its last output must be a 64-bit integer too."""
        return MAX_SEED - self.limits.max_outputs
