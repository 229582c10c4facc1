"""Inputs of a modular pipeline: what its blocks take, and a request in their words."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.model_info import TaskName

_NAMES: Mapping[str, tuple[str, ...]] = {
    **{
        name: (name,)
        for name in (
            "prompt",
            "negative_prompt",
            "width",
            "height",
            "num_frames",
            "num_inference_steps",
            "guidance_scale",
            "max_sequence_length",
            "strength",
        )
    },
    "fps": ("fps", "frame_rate"),
}
"""Our sampling parameters, with their names among the blocks' inputs."""

_OF_PICTURES: Mapping[TaskName, tuple[str, ...]] = {
    "image-to-image": ("image", "strength"),
    "inpainting": ("image", "mask_image", "strength"),
    "image-edit": ("image",),
}
_OF_VIDEOS: Mapping[TaskName, tuple[str, ...]] = {"image-to-video": ("image",)}
"""Inputs that the blocks have for a task. A picture without a strength is edited."""


class BlockInputs:
    """Inputs of a pipeline's blocks, and the components that each task needs."""

    def __init__(self, blocks: Any) -> None:
        self._blocks = blocks
        self._defaults = {each.name: each.default for each in blocks.inputs if each.name}
        self._makes_videos = any(each.name == "videos" for each in blocks.outputs)
        self._names = {
            name: known
            for name, aliases in _NAMES.items()
            if (known := next((each for each in aliases if each in self._defaults), None))
        }

    @property
    def makes_videos(self) -> bool:
        return self._makes_videos

    def takes(self, name: str) -> bool:
        """True if the blocks have the sampling parameter `name`."""
        return name in self._names

    def default(self, name: str, kind: type[int] | type[float]) -> Any:
        """The blocks' default of the sampling parameter `name`: a number of this kind, or None."""
        value = self._defaults.get(self._names.get(name))
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        return kind(value)

    def named_in(self, complaint: str) -> str | None:
        """The first sampling parameter that a block's error message mentions by its own name."""
        found = {known: name for name, known in self._names.items()}
        words = re.findall(r"\w+", complaint)
        return next((found[word] for word in words if word in found), None)

    def tasks(self) -> dict[TaskName, tuple[str, ...]]:
        """Tasks that the blocks do, each with the components that it needs."""
        task: TaskName = "text-to-video" if self._makes_videos else "text-to-image"
        others = _OF_VIDEOS if self._makes_videos else _OF_PICTURES
        found = {task: self._needed(())}
        for task, inputs in others.items():
            if set(inputs) <= self._defaults.keys() and not (
                task == "image-edit" and "image-to-image" in found
            ):
                found[task] = self._needed(inputs)
        return {task: needed for task, needed in found.items() if needed is not None}

    def _needed(self, inputs: Collection[str]) -> tuple[str, ...] | None:
        """Components that a request with a prompt and these inputs needs; None if the blocks need
        another input."""
        given = {"prompt", "generator", *inputs, *self._names.values()}
        run = self._blocks.get_execution_blocks(**dict.fromkeys(("prompt", *inputs), True))
        if any(each.required and each.name not in given for each in run.inputs):
            return None
        return tuple(
            each.name
            for each in run.expected_components
            if each.default_creation_method == "from_pretrained"
        )

    def of_request(
        self,
        params: SamplingParams,
        pictures: Mapping[str, np.ndarray[Any, Any]],
        generator: torch.Generator,
    ) -> dict[str, Any]:
        """Convert a request to inputs of the blocks; those without a value get their defaults."""
        given = {known: getattr(params, name) for name, known in self._names.items()}
        given |= {name: take(pictures) for name, take in _PICTURES.items()}
        given |= {"generator": generator, "output_type": "np"}
        set_now = {name: value for name, value in given.items() if value is not None}
        return self._defaults | {k: v for k, v in set_now.items() if k in self._defaults}


def _images(pictures: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    """The picture, or a list of them if there are several."""
    numbered = ("image", *(f"image_{number}" for number in range(2, len(pictures) + 1)))
    images = [Image.fromarray(pictures[name]) for name in numbered if name in pictures]
    return images if len(images) > 1 else images[0] if images else None


def _picture(name: str) -> Callable[[Mapping[str, np.ndarray[Any, Any]]], Any]:
    return lambda pictures: Image.fromarray(pictures[name]) if name in pictures else None


_PICTURES: Mapping[str, Callable[[Mapping[str, np.ndarray[Any, Any]]], Any]] = {
    "image": _images,
    "last_image": _picture("last_image"),
    "mask_image": _picture("mask"),
}
"""Inputs that are made of a request's pictures."""
