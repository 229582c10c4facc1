"""Measures one model: its evaluations, and decoding."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch

from multimodal_gen.benchmarks.device.instruments import Call, Instruments, counted_operations
from multimodal_gen.benchmarks.device.real_models import RealModel
from multimodal_gen.benchmarks.device.roofline import (
    Roofline,
    counted_products,
    measured_roofline,
)
from multimodal_gen.benchmarks.names import Scale
from multimodal_gen.benchmarks.report import Figure, median, single
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Phase
from multimodal_gen.messages.validation import requests_of
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.stages.request_state import RequestState

TIMED = 10
"""Maximum number of timed evaluations."""
TIMED_S = 15.0
"""No further one is timed after so long."""


def measure_model(
    name: str, model: RealModel, device: torch.device, scale: Scale
) -> Iterator[Figure]:
    """Yield each figure as soon as it is known."""
    instruments = Instruments(device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    pipeline = model.pipeline(device, dtype, scale)
    state = started(pipeline, SamplingParams.from_fields(**model.params(scale)))
    size = f"{state.params.width}x{state.params.height}"
    if (frames := state.params.num_frames or 1) > 1:
        size += f"x{frames}"
    rows, tokens = len(state.conditioning), pipeline.tokens(state)
    what = f"at {size}, {rows} x {tokens} tokens"

    def evaluate() -> None:
        pipeline.forward(Phase.DENOISE, [state], 1)

    first, _ = instruments.seconds(evaluate)
    yield single(f"{name}/first", f"seconds of the first evaluation {what}", first, "s")
    times = _repeated(instruments, evaluate)
    seconds = [each[1] for each in times]
    yield median(f"{name}/evaluation", f"ms of an evaluation {what}", _ms(seconds), "ms")
    host = _ms([each[0] for each in times])
    yield median(f"{name}/host", "ms of the host for an evaluation", host, "ms")
    with counted_operations() as operations:
        evaluate()
    yield single(f"{name}/operations", "operations of an evaluation", operations.count, "")
    waits = instruments.waits(evaluate)
    where = f": {', '.join(waits)}" if waits else ""
    yield single(
        f"{name}/waits", f"host waits in an evaluation{where}", waits.total(), "", target=0
    )
    peak = instruments.peak_bytes(evaluate) / 1e9
    yield single(f"{name}/memory", "peak GB of an evaluation, weights included", peak, "GB")
    share = instruments.attention_seconds(evaluate) / sorted(seconds)[len(seconds) // 2]
    yield single(f"{name}/attention", "share of attention in an evaluation", share, "x")
    yield _of_roofline(name, measured_roofline(device, dtype, scale), evaluate, seconds)
    yield from _decoding(name, pipeline, state, instruments)


def started(pipeline: ComposedPipeline, params: SamplingParams) -> RequestState:
    """A request of the pipeline, encoded and prepared."""
    (req,) = requests_of(params, pipeline.model_info("benchmark"))
    state = RequestState.of(req)
    pipeline.forward(Phase.ENCODE, [state], 1)
    return state


def _repeated(instruments: Instruments, evaluate: Call) -> list[tuple[float, float]]:
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + TIMED_S
    while len(times) < TIMED and (len(times) < 2 or time.perf_counter() < end):
        times.append(instruments.seconds(evaluate))
    return times


def _of_roofline(name: str, roofline: Roofline, evaluate: Call, seconds: list[float]) -> Figure:
    with counted_products() as products:
        evaluate()
    operations = sum(each for each, _ in products)
    share = roofline.seconds(products) / statistics.median(seconds)
    tflops, gbytes = roofline.operations_per_s / 1e12, roofline.bytes_per_s / 1e9
    return single(
        f"{name}/roofline",
        f"share of an evaluation that its {operations / 1e12:.2f} TFLOP of products and attention "
        f"take at the speeds measured here ({tflops:.2f} TFLOP/s, {gbytes:.0f} GB/s)",
        share,
        "x",
    )


def _decoding(
    name: str, pipeline: ComposedPipeline, state: RequestState, instruments: Instruments
) -> Iterator[Figure]:
    def decode() -> None:
        pipeline.forward(Phase.DECODE, [state], pipeline.decode_chunks(state.params))

    seconds: list[float] = []
    peak = instruments.peak_bytes(lambda: seconds.append(instruments.seconds(decode)[1])) / 1e9
    yield single(f"{name}/decode", "seconds of decoding, the first time", seconds[0], "s")
    yield single(f"{name}/decode_memory", "peak GB of decoding, weights included", peak, "GB")


def _ms(seconds: list[float]) -> list[float]:
    return [1000 * each for each in seconds]
