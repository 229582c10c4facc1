"""What the pretended device sees of requests: the operations and waits of their evaluations.

Import it when the device is installed. `see_on_device.py` is the command.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from engineless import left, start
from parity import take_pictures
from pretend_device import PretendDevice
from support import CASES, Cell
from tiny_checkpoints import build
from tiny_checkpoints.case import patched

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Phase
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.registry import load_pipeline
from multimodal_gen.runtime.stages.request_state import RequestState


@dataclass(frozen=True)
class Deep:
    """A native family's tiny checkpoint whose transformer has three layers of the last kind."""

    checkpoint: str
    transformer: dict[str, int] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)


_FOLDERS = tempfile.TemporaryDirectory()
NATIVE = {
    "flux": Deep("flux-dev", {"num_single_layers": 3}),
    "chroma": Deep("chroma", {"num_single_layers": 3}),
    "stable_diffusion_3": Deep("sd3", {"num_layers": 3}),
    "z_image": Deep("zimage", {"n_layers": 3}),
    "qwen_image": Deep("qwenimage", {"num_layers": 3}),
    "flux2": Deep("flux2-klein", {"num_single_layers": 3}),
    "qwen_image_21": Deep("qwenimage21", {"num_layers": 3}),
    "krea2": Deep("krea2", {"num_layers": 3}),
    "ltx2": Deep("ltx2", {"num_layers": 3}, {"num_frames": 5, "max_sequence_length": 32}),
    "minimax_h3": Deep("minimax-h3", {"num_layers": 3}, {"num_frames": 124}),
    "wan_vace": Deep("wan-vace", {}, {"num_frames": 5, "max_sequence_length": 32}),
    "wan": Deep("wan", {"num_layers": 3}, {"num_frames": 5, "max_sequence_length": 32}),
}
REQUEST: dict[str, Any] = {
    "prompt": "a red heart",
    "width": 64,
    "height": 64,
    "num_inference_steps": 4,
    "guidance_scale": 4.0,
    "seed": 4,
}


@contextmanager
def loaded(
    checkpoint: str, transformer: dict[str, int] | None = None
) -> Iterator[tuple[PretendDevice, ComposedPipeline]]:
    """A tiny checkpoint's pipeline in float32 on a device of its own."""
    folder = _built(checkpoint, tuple((transformer or {}).items()))
    with PretendDevice() as device:
        yield (
            device,
            load_pipeline(folder, device=device.device, dtype=torch.float32, mesh=Mesh()),
        )


@cache
def _built(checkpoint: str, transformer: tuple[tuple[str, int], ...]) -> Path:
    """A tiny checkpoint's folder, which is removed when the process ends."""
    folder = Path(_FOLDERS.name) / f"{checkpoint} {len(transformer)}"
    return build(checkpoint, folder, transformer=dict(transformer) or None)


def operations(family: str) -> int:
    """Of the second evaluation of two requests with one prompt: what the first makes and keeps,
    as rotary tables, is not among them."""
    deep = NATIVE[family]
    with loaded(deep.checkpoint, deep.transformer) as (device, pipeline):
        params = SamplingParams(**REQUEST | deep.request)
        states = [start(pipeline, params), start(pipeline, params)]
        pipeline.forward(Phase.DENOISE, states, 1)
        with device.watching() as seen:
            pipeline.forward(Phase.DENOISE, states, 1)
    return seen.operations.total()


def extrapolation() -> dict[str, Any]:
    """Two requests with a step cache: the waits of all evaluations, and the operations of each
    that runs the denoiser and of each that does not."""
    with loaded("flux-dev") as (device, pipeline):
        params = SamplingParams(**REQUEST | {"num_inference_steps": 16, "quality": "fast"})
        states = [start(pipeline, params), start(pipeline, params)]
        counts: dict[str, list[int]] = {"computed": [], "extrapolated": []}
        waits = 0
        for i in range(left(states[0])):
            with device.watching() as seen:
                pipeline.forward(Phase.DENOISE, states, 1)
            kind = "computed" if states[0].branches_at(i) else "extrapolated"
            counts[kind].append(seen.operations.total())
            waits += seen.waits.total()
    return {**counts, "waits": waits}


def generation(cell: Cell) -> dict[str, Any]:
    """A family's request for a task, from its text to its pixels, with one of another text beside
    it where they can share evaluations.

    Gives the waits, by place, where it is `encoded`, of the `first` evaluation and of those
    `later`, each with what comes after its step, and where it is `decoded`; and whether it was
    `previewed`.
    """
    case = CASES[cell]
    with ExitStack() as stack:
        stack.enter_context(patched(case.patches))
        device, pipeline = stack.enter_context(loaded(case.checkpoint))
        with device.watching() as encoded:
            states = _started(pipeline, case.call)
        first, later = _denoised(device, pipeline, states)
        with device.watching() as decoded:
            for state in states:
                _decode(pipeline, state)
        phases = {"encoded": encoded.waits, "first": first, "later": later}
        previewed = states[0].preview is not None
        return {**phases, "decoded": decoded.waits, "previewed": previewed}


def _started(pipeline: ComposedPipeline, call: dict[str, Any]) -> list[RequestState]:
    """Those of one batch."""
    pictures = take_pictures(call)
    other = call | {"prompt": "a dog that sleeps " * 2, "seed": 9}
    one, beside = (
        start(pipeline, SamplingParams(**each), pictures, previews=True, name=each["prompt"])
        for each in (call, other)
    )
    keys = [pipeline.batch_key(state, state.evaluation) for state in (one, beside)]
    return [one, beside] if keys[0] == keys[1] else [one]


def _denoised(
    device: PretendDevice, pipeline: ComposedPipeline, states: Sequence[RequestState]
) -> tuple[Counter[str], Counter[str]]:
    """The waits of the first evaluation, and of the others."""
    with device.watching() as first:
        pipeline.forward(Phase.DENOISE, states, 1)
    with device.watching() as later:
        while left(states[0]):
            pipeline.forward(Phase.DENOISE, states, 1)
    return first.waits, later.waits


def _decode(pipeline: ComposedPipeline, state: RequestState) -> None:
    for _ in range(pipeline.decode_chunks(state.params)):
        pipeline.forward(Phase.DECODE, [state], 1)
    assert all(chunk.dtype == torch.uint8 for chunk in state.chunks)


def generations() -> dict[str, Any]:
    return {" ".join(cell): _tried(cell) for cell in CASES}


def _tried(cell: Cell) -> dict[str, Any]:
    try:
        return generation(cell)
    except Exception:
        print(cell, file=sys.stderr)
        return {"error": traceback.format_exc()}
