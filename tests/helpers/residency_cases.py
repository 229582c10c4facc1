"""Requests with weights that are not all on the pretended device; `python residency_cases.py`.

Prints one JSON object: the name of each case -> what was seen of it.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest import mock

import pretend_device

CASES: dict[str, tuple[str, dict[str, int], dict[str, Any]]] = {
    "flux": ("flux-dev", {"num_layers": 4, "num_single_layers": 12}, {}),
    "flux int8": ("flux-dev", {"num_layers": 4, "num_single_layers": 12}, {}),
    "stable_diffusion_3": ("sd3", {"num_layers": 14}, {}),
    "z_image": ("zimage", {"n_layers": 24}, {}),
    "qwen_image": ("qwenimage", {"num_layers": 14}, {}),
    "qwen_image_21": ("qwenimage21", {"num_layers": 24}, {}),
    "flux2": ("flux2-klein", {"num_layers": 4, "num_single_layers": 12}, {}),
    "wan": ("wan", {"num_layers": 14}, {"num_frames": 5, "max_sequence_length": 32}),
    "wan experts": ("wan22", {"num_layers": 14}, {"num_frames": 5, "max_sequence_length": 32}),
    "minimax_h3": ("minimax-h3", {"num_layers": 14}, {"num_frames": 124}),
    "stable_diffusion": ("sd15", {}, {}),
    "pixart_sigma": ("pixart-sigma", {"num_layers": 28}, {"max_sequence_length": 32}),
}
"""Checkpoint, what is different of its transformer, and of the request."""
REQUEST: dict[str, Any] = {
    "prompt": "a red heart",
    "width": 64,
    "height": 64,
    "num_inference_steps": 4,
    "seed": 4,
}
OPTIONS: dict[str, dict[str, Any]] = {"flux int8": {"quantization": "int8"}}
"""Of loading."""
SHARE = 0.3
"""Of the weights: what the device has for them."""


def main(names: list[str]) -> None:
    print(json.dumps({name: _tried(name) for name in names or CASES}))


def _tried(name: str) -> dict[str, Any]:
    try:
        return seen_of(name)
    except Exception:
        return {"error": traceback.format_exc()}


def seen_of(name: str) -> dict[str, Any]:
    """A request with all weights on the device, and with a budget."""
    from tiny_checkpoints import build

    checkpoint, transformer, request = CASES[name]
    with tempfile.TemporaryDirectory() as parent:
        folder = build(checkpoint, Path(parent) / checkpoint, transformer=transformer)
        options = OPTIONS.get(name, {})
        with loaded(folder, **options) as (device, pipeline):
            weights = device.memory.live
            whole = generation(device, pipeline, request)
        working = whole["peak"] - weights
        budget = SHARE * weights + working
        with working_memory(working), loaded(folder, budget, **options) as (device, pipeline):
            part = generation(device, pipeline, request)
    return {
        "sentence": part["sentence"],
        "same pixels": part["pixels"] == whole["pixels"],
        "new waits": sorted(part["waits"].keys() - whole["waits"].keys()),
        "peak": part["peak"],
        "budget": budget,
        "evaluations": part["evaluations"],
        "encoded again": part["encoded again"],
    }


@contextmanager
def working_memory(size: int) -> Iterator[None]:
    """Have plans leave so many bytes for work."""
    from multimodal_gen.runtime.pipelines import placement, registry
    from multimodal_gen.scheduling import working_memory as guesses

    with (
        mock.patch.object(guesses, "evaluation_bytes", return_value=size),
        mock.patch.object(registry, "decoding_room", return_value=size),
        mock.patch.object(placement, "_decode_bytes", return_value=size),
    ):
        yield


@contextmanager
def loaded(folder: Path, budget: float | None = None, **options: Any) -> Iterator[tuple[Any, Any]]:
    import torch
    from pretend_device import PretendDevice

    from multimodal_gen.runtime.distributed.mesh import Mesh
    from multimodal_gen.runtime.pipelines.registry import load_pipeline

    with PretendDevice() as device:
        pipeline = load_pipeline(
            folder,
            device=device.device,
            dtype=torch.float32,
            mesh=Mesh(),
            device_memory_gb=None if budget is None else budget / 1e9,
            **options,
        )
        device.memory.peak = device.memory.live
        yield device, pipeline
        del pipeline
        gc.collect()


def generation(device: Any, pipeline: Any, request: dict[str, Any]) -> dict[str, Any]:
    """A request from its text to its pixels, with what its later evaluations copied."""
    import torch
    from engineless import left, start

    from multimodal_gen.configs.sampling_params import SamplingParams
    from multimodal_gen.messages.plan import Phase

    state = start(pipeline, SamplingParams(**REQUEST | request))
    evaluations: list[dict[str, list[int]]] = []
    waits: dict[str, int] = {}
    pipeline.forward(Phase.DENOISE, [state], 1)
    while left(state):
        stream = pipeline.residency.stream_of(pipeline.denoisers_now([state])[0])
        pipeline.hold(Phase.DENOISE, [state], 1)
        with device.watching() as seen, called_units(stream) as called:
            pipeline.forward(Phase.DENOISE, [state], 1)
        evaluations.append({"called": called, "copied": units_copied(stream, seen.copied)})
        waits |= seen.waits
    for _ in range(pipeline.decode_chunks(state.params)):
        pipeline.forward(Phase.DECODE, [state], 1)
    plan = pipeline.residency.plan
    with device.watching() as seen:
        start(pipeline, SamplingParams(**REQUEST | request), name="again")
    encoders = pipeline.components_of_kind("text_encoder")
    weights = {t.data_ptr() for name in encoders for t in pipeline.components[name].parameters()}
    return {
        "pixels": torch.cat(state.chunks).cpu().numpy().tobytes(),
        "waits": waits,
        "peak": device.memory.peak,
        "sentence": "" if plan is None else plan.sentence,
        "evaluations": evaluations,
        "encoded again": len(weights.intersection(seen.copied)),
    }


@contextmanager
def called_units(stream: Any) -> Iterator[list[int]]:
    """Numbers of the units that run, in order."""
    called: list[int] = []
    units = [] if stream is None else stream.units
    hooks = [
        unit.module.register_forward_pre_hook(lambda *_, n=number: called.append(n))
        for number, unit in enumerate(units)
    ]
    yield called
    for hook in hooks:
        hook.remove()


def units_copied(stream: Any, addresses: list[int]) -> list[int]:
    """Numbers of the units whose tensors were copied, in order."""
    if stream is None:
        return []
    places = {
        place.tensor.data_ptr(): number
        for number, unit in enumerate(stream.units)
        for place in unit.bundle._places
    }
    numbers = [places[address] for address in addresses if address in places]
    return [number for number, _ in groupby(numbers)]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    pretend_device.install()
    main(sys.argv[1:])
