"""Inputs of a modular pipeline: what its blocks take, and a request in their words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import TaskName
from multimodal_gen.messages.pictures import Pixels, images_of
from multimodal_gen.runtime.pipelines.fallback.signature import LibraryParameters, as_pil

_FROM_NOISE: tuple[TaskName, ...] = ("text-to-image", "text-to-video")
_OF_PICTURES: Mapping[TaskName, tuple[str, ...]] = {
    "text-to-image": (),
    "image-to-image": ("image", "strength"),
    "inpainting": ("image", "mask_image", "strength"),
    "image-edit": ("image",),
}
_OF_VIDEOS: Mapping[TaskName, tuple[str, ...]] = {
    "text-to-video": (),
    "image-to-video": ("image",),
}
"""Tasks, and the blocks' inputs for them."""
_ANIMATED: Mapping[TaskName, tuple[str, ...]] = {"reference-to-video": ("image", "driving_video")}
"""The same for blocks that have a picture move as a video does."""


class BlockInputs(LibraryParameters):
    """Inputs of a pipeline's blocks, and the components that each task needs."""

    def __init__(self, blocks: Any) -> None:
        super().__init__({each.name: each for each in blocks.inputs if each.name})
        self._blocks = blocks
        makes_videos = any(each.name == "videos" for each in blocks.outputs)
        known = _ANIMATED if self.has("driving_video") else _OF_VIDEOS
        self._known = known if makes_videos else _OF_PICTURES

    def has(self, name: str) -> bool:
        """True if the blocks have an input of this name."""
        return name in self._parameters

    def tasks(self) -> dict[TaskName, tuple[str, ...]]:
        """Tasks that the blocks do, each with the components that it needs. Blocks that make
        pictures of text and have a strength start from a picture; others edit it."""
        found = {
            task: needed
            for task, inputs in self._known.items()
            if set(inputs) <= self._parameters.keys()
            and (needed := self._needed(inputs)) is not None
        }
        if "image-to-image" in found:
            found.pop("image-edit" if "text-to-image" in found else "image-to-image", None)
        return found

    def _needed(self, inputs: tuple[str, ...]) -> tuple[str, ...] | None:
        """Components that a request with a prompt and these inputs needs; None if the blocks need
        another input."""
        run = self._blocks.get_execution_blocks(**dict.fromkeys(("prompt", *inputs), True))
        given = {"prompt", "generator", *inputs, *self._names.values()}
        if any(each.required and each.name not in given for each in run.inputs):
            return None
        return tuple(
            each.name
            for each in run.expected_components
            if each.default_creation_method == "from_pretrained"
        )

    def of_request(
        self, params: SamplingParams, pixels: Pixels, task: TaskName, generator: torch.Generator
    ) -> dict[str, Any]:
        """Convert a request to inputs of the blocks; those without a value get their defaults.

        Raises InvalidRequest for pictures that the task does not take or lacks.
        """
        known = self._known[task]
        names = {*known, *(() if task in _FROM_NOISE else ("last_image",))}
        if task == "image-to-video" and "image_2" in pixels:
            count = f"{len(images_of(pixels))} images"
            raise InvalidRequest("image_path", count, "one image is the first frame")
        shown = {name: take(pixels) for name, take in _TAKEN.items() if name in names}
        for name in known:
            if name in shown and shown[name] is None:
                field = "video_path" if name == "driving_video" else "image_path"
                raise InvalidRequest(field, None, f"required for {task}")
        given = self.arguments(params) | {name: v for name, v in shown.items() if v is not None}
        given |= {"generator": generator, "output_type": "np"}
        defaults = {name: each.default for name, each in self._parameters.items()}
        return defaults | {name: v for name, v in given.items() if name in defaults}


def task_of(tasks: tuple[TaskName, ...], pixels: Pixels) -> TaskName:
    """The task of a request to a model that does `tasks`, as its pictures tell."""
    kinds: list[TaskName] = ["inpainting"] if "mask" in pixels else []
    kinds += ["image-to-video", "image-to-image", "image-edit"] if "image" in pixels else []
    return next((task for task in kinds if task in tasks), tasks[0])


def _images(pixels: Pixels) -> Any:
    """The picture, or a list of them if there are several."""
    images = [as_pil(each) for each in images_of(pixels)]
    return images if len(images) > 1 else images[0] if images else None


def _video(pixels: Pixels) -> Any:
    return [as_pil(frame) for frame in pixels["video"]] if "video" in pixels else None


def _picture(name: str) -> Callable[[Pixels], Any]:
    return lambda pixels: as_pil(pixels[name]) if name in pixels else None


_TAKEN: Mapping[str, Callable[[Pixels], Any]] = {
    "image": _images,
    "last_image": _picture("last_image"),
    "mask_image": _picture("mask"),
    "driving_video": _video,
}
"""Inputs that are made of a request's pictures."""
