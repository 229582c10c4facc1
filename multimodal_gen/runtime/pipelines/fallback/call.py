"""Calls one of diffusers' own pipelines: maps arguments, and runs it step by step."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import not_finite
from multimodal_gen.runtime.pipelines.fallback.previews import X0Recorder
from multimodal_gen.runtime.pipelines.fallback.stepped_call import Pause, SteppedCall

_NAMES: Mapping[str, tuple[str, ...]] = {
    **{
        name: (name,)
        for name in (
            "prompt",
            "negative_prompt",
            "width",
            "height",
            "num_inference_steps",
            "guidance_scale",
            "true_cfg_scale",
            "max_sequence_length",
        )
    },
    "num_frames": ("num_frames", "video_length", "frames"),
}
"""Our sampling parameters, with their names in the library's calls."""


class CallSignature:
    """Parameters of a pipeline class's call."""

    def __init__(self, kind: type[Any]) -> None:
        self._parameters = inspect.signature(kind.__call__).parameters
        self._names = {
            name: known
            for name, aliases in _NAMES.items()
            if (known := next((each for each in aliases if each in self._parameters), None))
        }
        tensors: Sequence[str] = getattr(kind, "_callback_tensor_inputs", ())
        self._calls_every_evaluation = (
            "callback_on_step_end" in self._parameters and "latents" in tensors
        )
        self.has_step_callback = self._calls_every_evaluation or "callback" in self._parameters

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
        """Convert the request to keyword arguments; None values are left to the library."""
        given = {known: getattr(params, name) for name, known in self._names.items()}
        return {known: value for known, value in given.items() if value is not None}

    def step_callback(self, pause: Pause) -> dict[str, Any]:
        """Keyword arguments that call `pause` with the latents after each step."""
        if not self._calls_every_evaluation:
            return {"callback": lambda step, time, latents: pause(latents), "callback_steps": 1}

        def on_step_end(_: Any, step: int, time: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
            pause(tensors["latents"])
            return {}

        return {
            "callback_on_step_end": on_step_end,
            "callback_on_step_end_tensor_inputs": ["latents"],
        }

    def callbacks(self, steps: int, scheduler: Any) -> int:
        """Number of callbacks: one per step in older pipelines, one per evaluation in others."""
        return len(scheduler.timesteps) if self._calls_every_evaluation else steps


def start_call(
    stock: Any,
    signature: CallSignature,
    params: SamplingParams,
    generator: torch.Generator,
    *,
    previews: bool,
) -> SteppedCall:
    """Start a request's own call of the pipeline `stock`, to be resumed step by step.

    It yields the number of steps before the first one; then, after each step, the latents and the
    estimate of x0 (None if unknown, or without `previews`); finally the pixels, uint8
    [F, H, W, 3]. Requests share the pipeline's modules, but not its scheduler or
    its settings.
    """

    @torch.inference_mode()
    def call(pause: Pause) -> Tensor:
        pipeline = copy.copy(stock)
        pipeline.scheduler = copy.deepcopy(stock.scheduler)
        recorder = X0Recorder(pipeline.scheduler) if previews else None
        announced = False

        def progress_bar(iterable: Any = None, total: int | None = None) -> Any:
            nonlocal announced
            if not announced:
                announced = True
                steps = len(iterable) if total is None else total
                pause(signature.callbacks(steps, pipeline.scheduler))
            return stock.progress_bar(iterable, total)

        pipeline.progress_bar = progress_bar
        try:
            output = pipeline(
                **signature.arguments(params),
                **signature.step_callback(
                    lambda latents: pause((latents, recorder.x0 if recorder else None))
                ),
                generator=generator,
                output_type="np",
                return_dict=False,
            )
        finally:
            del pipeline.progress_bar  # refers to the pipeline, which would be a cycle
            if recorder is not None:
                recorder.close()
        return _to_uint8(np.asarray(output[0]))

    return SteppedCall(call)


def _to_uint8(pixels: np.ndarray[Any, Any]) -> Tensor:
    """[..., H, W, 3] in 0..1 -> [F, H, W, 3] uint8. Raises GenerationFailed for NaN."""
    if not np.isfinite(pixels).all():
        raise not_finite("decoding")
    frames = pixels.reshape(-1, *pixels.shape[-3:])
    return torch.from_numpy((frames * 255).round().astype(np.uint8, order="C"))
