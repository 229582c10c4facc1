"""A small request that shows a task of a family, and what such requests have in common."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from multimodal_gen.messages.model_info import TaskName

from .pictures import picture

Cell = tuple[str, TaskName]
"""A family and one of its tasks."""

Patches = Sequence[tuple[str, str, Any]]
"""Modules, names in them, and their values."""

COMMON: dict[str, Any] = {
    "prompt": "a red heart on the sea",
    "width": 96,
    "height": 64,
    "num_inference_steps": 3,
    "guidance_scale": 4.0,
    "seed": 4,
}
PICTURE = {"image": picture(70, 90)}
PICTURES = {"image": [picture(70, 90), picture(130, 64, "L").convert("RGB"), picture(75, 66)]}
"""Of unlike sizes."""
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

    patches: Patches = ()
    """Names in modules that are something else meanwhile: a large constant, made small."""

    @property
    def own_patches(self) -> Patches:
        """Those of this project's modules."""
        return tuple(each for each in self.patches if each[0].startswith("multimodal_gen."))

    @property
    def call(self) -> dict[str, Any]:
        merged = COMMON | self.changes
        return {name: value for name, value in merged.items() if value is not None}


@contextmanager
def patched(patches: Patches) -> Iterator[None]:
    """Change these values meanwhile."""
    with ExitStack() as stack:
        for module, name, value in patches:
            stack.enter_context(mock.patch(f"{module}.{name}", value))
        yield
