"""A small request that shows a task of a family, and what such requests have in common."""

from dataclasses import dataclass, field
from typing import Any

from multimodal_gen.messages.model_info import TaskName

from .pictures import picture

Cell = tuple[str, TaskName]
"""A family and one of its tasks."""

COMMON: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "width": 96,
    "height": 64,
    "num_inference_steps": 3,
    "guidance_scale": 4.0,
    "seed": 4,
}
PICTURE = {"image": picture(70, 90)}
INPAINTING = {**PICTURE, "mask_image": picture(50, 40, "L")}
STRENGTH = {"strength": 0.7}
VIDEO = {"num_frames": 9, "max_sequence_length": 32}
AS_ASKED = {"use_resolution_binning": False, "clean_caption": False}
"""For pipelines that would round the size and rewrite the prompt."""


@dataclass(frozen=True)
class Case:
    """A tiny checkpoint, and what is asked of it in diffusers' words."""

    checkpoint: str
    stock: Any = None
    """diffusers' class for the task, where it is not the checkpoint's own."""
    changes: dict[str, Any] = field(default_factory=dict)
    """To `COMMON`; None takes something out of it."""
    stock_call: dict[str, Any] = field(default_factory=dict)
    """What only diffusers has to be told."""

    patches: tuple[tuple[str, str, Any], ...] = ()
    """Names in modules that are something else meanwhile: a large constant, made small."""

    @property
    def call(self) -> dict[str, Any]:
        merged = COMMON | self.changes
        return {name: value for name, value in merged.items() if value is not None}
