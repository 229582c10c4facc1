"""Parameters of the call of one of diffusers' pipelines, and how a request's map to them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
from torch import Tensor

from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.configs.families.library_pipelines import LibraryPipeline
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.pictures import Pixels, images_of
from multimodal_gen.runtime.pipelines.fallback.stepped_call import Pause

_SAME = (
    "prompt",
    "width",
    "height",
    "num_inference_steps",
    "guidance_scale_2",
    "true_cfg_scale",
    "guidance_rescale",
    "max_sequence_length",
    "strength",
    "decode_timestep",
    "decode_noise_scale",
)
_NAMES: Mapping[str, tuple[str, ...]] = {
    **{name: (name,) for name in _SAME},
    "negative_prompt": ("negative_prompt", "neg_prompt"),
    "guidance_scale": ("guidance_scale", "distilled_guidance_scale"),
    "num_frames": ("num_frames", "video_length", "frames"),
    "fps": ("fps", "frame_rate"),
}
"""Our sampling parameters, with their names in the library's calls."""
_FOR_USUAL_STEPS = ("intermediate_timesteps",)
"""Arguments whose default suits the default number of steps only: None with others."""
_OF_CONTROL: Mapping[str, tuple[str, ...]] = {
    "scale": ("controlnet_conditioning_scale", "adapter_conditioning_scale"),
    "start": ("control_guidance_start",),
    "stop": ("control_guidance_end", "adapter_conditioning_factor"),
}
_USUAL_CONTROL = {"scale": 1.0, "start": 0.0, "stop": 1.0}
_GUIDANCE = ("guidance_scale", "true_cfg_scale", "guidance_scale_2")


class LibraryParameters:
    """Parameters that a library takes, by its own names, each with a `default`."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters
        self._names = {
            name: known
            for name, aliases in _NAMES.items()
            if (known := next((each for each in aliases if each in parameters), None))
        }

    def takes(self, name: str) -> bool:
        """True if it supports the sampling parameter `name`."""
        return name in self._names

    def default(self, name: str, kind: type[int] | type[float]) -> Any:
        """Default of the sampling parameter `name`: a number of this kind, or None."""
        if name not in self._names:
            return None
        value = self._parameters[self._names[name]].default
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return kind(value) if is_number else None

    def named_in(self, complaint: str) -> str | None:
        """The first sampling parameter that a library's error message mentions by its own name."""
        found = {known: name for name, known in self._names.items()}
        words = re.findall(r"\w+", complaint)
        return next((found[word] for word in words if word in found), None)

    def arguments(self, params: SamplingParams) -> dict[str, Any]:
        """Convert the request to keyword arguments; None values are left to the library, and so is
        guidance that it has no number for, unless the request asks for some."""
        given = {name: getattr(params, name) for name in self._names}
        for name in _GUIDANCE:
            if given.get(name) == 1 and self.default(name, float) is None:
                del given[name]
        asked = {self._names[name]: value for name, value in given.items() if value is not None}
        unusual = params.num_inference_steps != self.default("num_inference_steps", int)
        unset = [name for name in _FOR_USUAL_STEPS if name in self._parameters and unusual]
        return {**asked, **dict.fromkeys(unset)}


class CallSignature(LibraryParameters):
    """Parameters of a pipeline class's call."""

    def __init__(self, kind: type[Any], entry: LibraryPipeline) -> None:
        super().__init__(inspect.signature(kind.__call__).parameters)
        self._entry = entry
        tensors: Sequence[str] = getattr(kind, "_callback_tensor_inputs", ())
        self._calls_every_evaluation = (
            "callback_on_step_end" in self._parameters and "latents" in tensors
        )
        self.has_step_callback = self._calls_every_evaluation or "callback" in self._parameters

    def pictures(self, pixels: Pixels, params: SamplingParams) -> dict[str, Any]:
        """Keyword arguments of the request's input pictures, as PIL images and lists of them.

        A call without sizes takes its size from the pictures, so these are resized to the
        request's.
        """
        size = None if self.takes("width") else (params.width, params.height)
        found: dict[str, Any] = {}
        inputs = dict(self._entry.inputs)
        if self._entry.control is not None and "control_1" in pixels:
            inputs["control_1"] = self._entry.control
        for ours, theirs in inputs.items():
            if ours not in pixels:
                continue
            if ours == "video":
                frames = pixels[ours][: params.num_frames]
                found[theirs] = [as_pil(frame, size) for frame in frames]
            elif ours == "image" and self._entry.images > 1 and "image_2" not in self._entry.inputs:
                found[theirs] = [as_pil(each, size) for each in images_of(pixels)]
            else:
                found[theirs] = as_pil(pixels[ours], size)
        return found

    def steering(self, choices: Sequence[ControlChoice]) -> dict[str, Any]:
        """Keyword arguments of how strongly a request's control steers, and when. Raises
        InvalidRequest for a number that the call does not take."""
        found: dict[str, Any] = {}
        for choice in choices:
            for name, usual in _USUAL_CONTROL.items():
                value = getattr(choice, name)
                known = [each for each in _OF_CONTROL[name] if each in self._parameters]
                if known:
                    found[known[0]] = float(value)
                elif value != usual:
                    allowed = f"must be {usual}: this pipeline has no other"
                    raise InvalidRequest(f"control.{name}", value, allowed)
        return found

    def step_callback(self, pause: Pause) -> dict[str, Any]:
        """Keyword arguments that call `pause` with the latents after each step; none if the call
        has no such parameters."""
        if not self.has_step_callback:
            return {}
        if not self._calls_every_evaluation:
            return {"callback": lambda step, time, latents: pause(latents), "callback_steps": 1}

        def on_step_end(_: Any, step: int, time: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
            pause(tensors["latents"])
            return {}

        return {
            "callback_on_step_end": on_step_end,
            "callback_on_step_end_tensor_inputs": ["latents"],
        }

    def callbacks(self, steps: int, params: SamplingParams, scheduler: Any) -> int:
        """Number of pauses of a loop of `steps`: one per step in older pipelines, one per
        evaluation in others. An input picture may leave out the first steps."""
        if self.has_step_callback and not self._calls_every_evaluation:
            return steps
        evaluations = len(scheduler.timesteps) if scheduler.timesteps is not None else steps
        order = getattr(scheduler, "order", 1)
        left_out = (params.num_inference_steps or steps) - steps
        return evaluations - left_out * order if evaluations > steps * order else evaluations


def as_pil(pixels: np.ndarray[Any, Any], size: tuple[Any, Any] | None = None) -> PIL.Image.Image:
    """[H, W, 3] or [H, W] as a picture, of this width and height if they are given."""
    image = PIL.Image.fromarray(np.ascontiguousarray(pixels))
    return image if size in (None, image.size) else image.resize(size, PIL.Image.Resampling.LANCZOS)
