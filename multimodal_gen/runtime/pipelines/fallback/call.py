"""Calls one of diffusers' own pipelines, step by step."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import SchedulerMixin
from diffusers.guiders.guider_utils import BaseGuidance
from torch import Tensor, nn

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import not_finite
from multimodal_gen.runtime.pipelines.fallback.own_randomness import OwnRandomness
from multimodal_gen.runtime.pipelines.fallback.previews import X0Recorder
from multimodal_gen.runtime.pipelines.fallback.signature import CallSignature
from multimodal_gen.runtime.pipelines.fallback.stepped_call import Pause, SteppedCall

_OWN = (SchedulerMixin, BaseGuidance)
"""Components that change while a request runs, so that each has its own."""


class CallResult(NamedTuple):
    """Results of a call."""

    pixels: Tensor
    """uint8 [F, H, W, 3]."""
    sound: Tensor | None
    """float32 [channels, samples]."""
    rate: int = 0
    """Samples of sound per second; 0: the vocoder's config says it."""


def start_call(
    stock: Any,
    signature: CallSignature,
    params: SamplingParams,
    pictures: Mapping[str, Any],
    generator: torch.Generator,
    *,
    previews: bool = False,
) -> SteppedCall:
    """Start a request's own call of the pipeline `stock`, to be resumed step by step.

    It yields the number of steps before the first one; then, after each step, the latents and the
    estimate of x0 (None if unknown, or without `previews`); finally what it made. Requests share
    the pipeline's weights, but not its scheduler or its settings. `pictures` are further keyword
    arguments.
    """

    @torch.inference_mode()
    def call(stop: Pause) -> CallResult:
        randomness = OwnRandomness(params.seed or 0, stock.device)
        pipeline = _own(stock, params)
        recorder = X0Recorder(pipeline.scheduler) if previews else None
        announced = False

        def pause(value: Any) -> None:
            randomness.leave()
            stop(value)
            randomness.__enter__()

        def announce(steps: int) -> None:
            nonlocal announced
            if not announced:
                announced = True
                pause(signature.callbacks(steps, params, pipeline.scheduler))

        def progress_bar(iterable: Any = None, total: int | None = None) -> Any:
            announce(len(iterable) if total is None else total)
            return stock.progress_bar(iterable, total)

        def stepped(latents: Tensor) -> None:
            announce(params.num_inference_steps or 1)
            pause((latents, recorder.x0 if recorder else None))

        pipeline.progress_bar = progress_bar
        if not signature.has_step_callback:
            pause_after_steps(pipeline.scheduler, stepped)
        try:
            with randomness:
                output = pipeline(
                    **signature.arguments(params),
                    **pictures,
                    **signature.step_callback(stepped),
                    generator=generator,
                    output_type="np",
                    return_dict=False,
                )
        finally:
            del pipeline.progress_bar  # refers to the pipeline, which would be a cycle
            if recorder is not None:
                recorder.close()
            vars(pipeline.scheduler).pop("step", None)
        return _made(output if isinstance(output, tuple) else (output,))

    return SteppedCall(call)


def _own(stock: Any, params: SamplingParams) -> Any:
    """A pipeline with the same weights, for one request. A guider is told the request's scale."""
    pipeline = copy.copy(stock)
    for name, part in stock.components.items():
        if isinstance(part, _OWN):
            setattr(pipeline, name, copy.deepcopy(part))
    if (guider := getattr(pipeline, "guider", None)) is not None:
        guider.guidance_scale = params.guidance_scale
    if hasattr(stock, "pag_applied_layers"):  # the call exchanges its denoiser's attention
        name = "unet" if hasattr(stock, "unet") else "transformer"
        setattr(pipeline, name, _same_weights(getattr(stock, name)))
    return pipeline


def _same_weights(module: nn.Module) -> nn.Module:
    """Copy a module's structure; the copy has the same tensors."""
    shared = {id(each): each for each in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared)


def pause_after_steps(scheduler: Any, pause: Pause) -> None:
    """Call `pause` with the latents after each of the scheduler's steps."""
    step = scheduler.step

    def stepped(*args: Any, **options: Any) -> Any:
        result = step(*args, **options)
        pause(result[0])
        return result

    scheduler.step = stepped


def _made(output: tuple[Any, ...]) -> CallResult:
    sound = output[1] if len(output) > 1 and isinstance(output[1], Tensor) else None
    return CallResult(
        to_uint8(_pixels(output[0])), None if sound is None else sound[0].float().cpu()
    )


def _pixels(output: Any) -> np.ndarray[Any, Any]:
    """Pictures or frames [..., H, W, 3], however they are nested."""
    if isinstance(output, list | tuple):
        return np.stack([_pixels(each) for each in output])
    return np.asarray(output)


def to_uint8(pixels: np.ndarray[Any, Any]) -> Tensor:
    """[..., H, W, 3] in 0..1 -> [F, H, W, 3] uint8. Raises GenerationFailed for NaN."""
    if not np.isfinite(pixels).all():
        raise not_finite("decoding")
    frames = pixels.reshape(-1, *pixels.shape[-3:])
    return torch.from_numpy((frames * 255).round().astype(np.uint8, order="C"))
