"""Runs requests through `ComposedPipeline.forward` alone: no server, no sockets, no scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from multimodal_gen.configs.quantization import Quantization
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.codec import header_of
from multimodal_gen.messages.plan import Phase
from multimodal_gen.messages.request import Req
from multimodal_gen.messages.validation import resolve, warnings_about
from multimodal_gen.runtime.controls.control_rows import ControlUse
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.layers.lora import LoraUse
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.registry import load_pipeline
from multimodal_gen.runtime.stages.request_state import RequestState

Pictures = dict[str, npt.NDArray[np.uint8]]
"""By the names in messages/pictures.py."""


@dataclass(frozen=True)
class Output:
    """`latents` as the denoiser has them, [1, ...]; `pixels` uint8 [F, H, W, 3]; `sound` float32
    [channels, samples]."""

    latents: torch.Tensor
    pixels: npt.NDArray[np.uint8]
    sound: npt.NDArray[np.float32] | None = None


def load(
    folder: Path,
    dtype: torch.dtype = torch.float32,
    *,
    mesh: Mesh | None = None,
    quantization: Quantization | None = None,
) -> ComposedPipeline:
    return load_pipeline(
        folder,
        device=torch.device("cpu"),
        dtype=dtype,
        mesh=mesh or Mesh(),
        quantization=quantization,
    )


def start(
    pipeline: ComposedPipeline,
    params: SamplingParams,
    pictures: Pictures | None = None,
    *,
    previews: bool = False,
    loras: Sequence[LoraUse] = (),
    controls: Sequence[ControlUse] = (),
    name: str = "test",
) -> RequestState:
    """A request with the defaults filled in (seed 0), encoded and prepared."""
    params = params if params.seed is not None else replace(params, seed=0)
    pictures = pictures or {}
    headers = {name: header_of(picture) for name, picture in pictures.items()}
    resolved = resolve(params, pipeline.model_info("test"), headers)
    told = warnings_about(params, pipeline.model_info("test"), headers)
    req = Req(id=name, params=resolved, previews=previews, pictures=headers, warnings=told)
    state = RequestState.of(req, [*pictures.values()])
    state.loras, state.controls = tuple(loras), tuple(controls)
    pipeline.forward(Phase.ENCODE, [state], 1)
    return state


def left(state: RequestState) -> int:
    """Evaluations that a request still needs."""
    solver, _ = state.running()
    return solver.num_evaluations - state.evaluation


def finish(pipeline: ComposedPipeline, state: RequestState) -> Output:
    """Decode, chunk by chunk, and put together."""
    for _ in range(pipeline.decode_chunks(state.params)):
        pipeline.forward(Phase.DECODE, [state], 1)
    _, latents = state.running()
    sound = None if state.audio is None else state.audio.cpu().numpy()
    return Output(latents, torch.cat(state.chunks).numpy(), sound)


def run_each(pipeline: ComposedPipeline, requests: Sequence[SamplingParams]) -> list[Output]:
    """One after another."""
    return [run(pipeline, params) for params in requests]


def run(
    pipeline: ComposedPipeline,
    params: SamplingParams,
    pictures: Pictures | None = None,
    *,
    loras: Sequence[LoraUse] = (),
    controls: Sequence[ControlUse] = (),
) -> Output:
    state = start(pipeline, params, pictures, loras=loras, controls=controls)
    pipeline.forward(Phase.DENOISE, [state], left(state))
    return finish(pipeline, state)


def run_joined(
    pipeline: ComposedPipeline,
    requests: Sequence[SamplingParams],
    joins: Sequence[int],
    pictures: Sequence[Pictures] | None = None,
) -> list[Output]:
    """Request j joins the batch after `joins[j]` evaluations, and leaves it when it is done.

    All must be of one batch key. `pictures` are each request's, in their order.
    """
    with_them = zip(requests, pictures or [{}] * len(requests), strict=True)
    states = [start(pipeline, params, given) for params, given in with_them]
    assert len({pipeline.batch_key(state, 0) for state in states}) == 1
    clock = 0
    while any(left(state) for state in states):
        batch = [s for s, join in zip(states, joins, strict=True) if join <= clock and left(s)]
        if batch:
            pipeline.forward(Phase.DENOISE, batch, 1)
        clock += 1
    return [finish(pipeline, state) for state in states]
