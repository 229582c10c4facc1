"""Compares captured evaluations with eager ones, of the bundled model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from multimodal_gen.benchmarks.device.checks import PROMPT, bundled
from multimodal_gen.benchmarks.device.evaluation import started
from multimodal_gen.benchmarks.device.instruments import Instruments
from multimodal_gen.benchmarks.names import Scale
from multimodal_gen.benchmarks.report import Figure, median, single
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Phase
from multimodal_gen.messages.request import Runner
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.stages.request_state import RequestState

_REQUESTS = (1, 3, 8)
"""Numbers of requests; none of their rows are padded."""
_STEPS = {"full": 20, "tiny": 4}
_UNTIMED = 2
"""Evaluations until there is a graph."""


def graphs(device: torch.device, scale: Scale) -> Iterator[Figure]:
    """Yield differences, times, the number of graphs and their memory."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    pipeline, instruments = bundled(device, dtype), Instruments(device)
    cache = pipeline.runners.graphs
    if cache is None:
        return
    before = _reserved(device)
    for count in _REQUESTS:
        ways = [_run(pipeline, runner, count, scale, instruments) for runner in _RUNNERS]
        (eager, eager_ms), (captured, captured_ms) = ways
        name, what = f"graphs/{count}", f"of {count} requests, 2 rows each"
        apart = (captured - eager).abs().max() / eager.abs().max()
        told = f"largest difference of latents {what}, captured and eager, of the largest"
        yield single(f"{name}/difference", told, apart.item(), "", target=0)
        yield median(f"{name}/eager", f"ms of an eager evaluation {what}", eager_ms, "ms")
        yield median(f"{name}/captured", f"ms of a captured one {what}", captured_ms, "ms")
    yield single("graphs/count", "graphs", len(cache), "", target=len(_REQUESTS))
    yield single("graphs/failed", "captures that failed", int(cache.failed), "", target=0)
    yield single("graphs/inputs", "MB of their inputs", cache.size / 1e6, "MB")
    more = (_reserved(device) - before) / 1e6
    yield single("graphs/memory", "MB reserved meanwhile, by eager evaluations as well", more, "MB")


_RUNNERS: tuple[Runner, ...] = ("eager", "captured")


def _run(
    pipeline: ComposedPipeline,
    runner: Runner,
    count: int,
    scale: Scale,
    instruments: Instruments,
) -> tuple[Tensor, list[float]]:
    """Latents of all requests at their end, and the ms of each evaluation but the first ones."""
    states = [_request(pipeline, seed, scale) for seed in range(count)]
    for state in states:
        state.runner = runner
    times: list[float] = []
    while states[0].evaluations_left:
        times.append(1e3 * instruments.seconds(lambda: _evaluate(pipeline, states))[1])
    latents = [state.running()[1] for state in states]
    return torch.cat(latents).float(), times[_UNTIMED:]


def _evaluate(pipeline: ComposedPipeline, states: Sequence[RequestState]) -> None:
    pipeline.forward(Phase.DENOISE, states, 1)


def _request(pipeline: ComposedPipeline, seed: int, scale: Scale) -> RequestState:
    params = SamplingParams(prompt=PROMPT, seed=seed, num_inference_steps=_STEPS[scale])
    return started(pipeline, params)


def _reserved(device: torch.device) -> int:
    """Bytes that the allocator has of the device, graphs included."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0
