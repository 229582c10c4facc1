"""Finds the known name that a misspelt one stands for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from difflib import get_close_matches
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from multimodal_gen.errors import InvalidRequest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Declared = TypeVar("Declared", bound="DataclassInstance")

_ALIKE = 0.7
_ELSEWHERE = {
    "step": "num_inference_steps",
    "steps": "num_inference_steps",
    "num_steps": "num_inference_steps",
    "sample_steps": "num_inference_steps",
    "n": "num_outputs_per_prompt",
    "batch_size": "num_outputs_per_prompt",
    "num_images": "num_outputs_per_prompt",
    "num_images_per_prompt": "num_outputs_per_prompt",
    "num_videos_per_prompt": "num_outputs_per_prompt",
    "n_iter": "num_outputs_per_prompt",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "guidance": "guidance_scale",
    "sampler": "scheduler",
    "sampler_name": "scheduler",
    "solver": "scheduler",
    "denoising_strength": "strength",
    "denoise": "strength",
    "init_image": "image",
    "input_image": "image",
    "mask_image": "mask",
    "control_image": "control",
    "generator": "seed",
    "random_seed": "seed",
    "frames": "num_frames",
    "loras": "lora",
    "lora_scale": "lora",
    "torch_dtype": "dtype",
    "precision": "dtype",
    "model": "model_path",
    "model_id": "model_path",
    "path": "model_path",
    "gpus": "num_gpus",
    "tp_size": "tensor_degree",
    "lora_path": "lora_dir",
    "device_map": "device",
}
"""Names in other programs, and the names here of what they stand for."""


def similar_name(name: str, known: Collection[str]) -> str | None:
    """Return the known name that is meant: the name here of what other programs call so, the one
    that is spelt most alike, or the shortest that has all words of `name`; None if there is none.
    """
    name = name.lower().replace("-", "_")
    if (elsewhere := _ELSEWHERE.get(name)) in known:
        return elsewhere
    if alike := get_close_matches(name, known, 1, _ALIKE):
        return alike[0]
    words = {word.removesuffix("s") for word in name.split("_") if word}
    having = [each for each in known if words and words <= _words(each)]
    return min(having, key=len, default=None)


def _words(name: str) -> set[str]:
    return {word.removesuffix("s") for word in name.split("_")}


def suggesting_names(declared: type[Declared]) -> type[Declared]:
    """Let a dataclass raise InvalidRequest for a field that it lacks, with the one that is meant,
    or else with all. A class decorator."""
    known = [field.name for field in fields(declared)]
    make: Any = declared.__init__

    @wraps(make)
    def checked(self: Declared, *args: Any, **given: Any) -> None:
        for name in given.keys() - known:
            nearest = similar_name(name, known)
            hint = f"did you mean {nearest}?" if nearest else f"allowed are {', '.join(known)}"
            raise InvalidRequest(name, given[name], f"unknown; {hint}")
        make(self, *args, **given)

    setattr(declared, "__init__", checked)  # noqa: B010  a type checker sees the dataclass's own
    return declared
