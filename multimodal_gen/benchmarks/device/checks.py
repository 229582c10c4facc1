"""Checks of what a device computes: pictures, quantised products, and recovery."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.benchmarks.device.evaluation import started
from multimodal_gen.benchmarks.device.instruments import Instruments
from multimodal_gen.benchmarks.names import Scale
from multimodal_gen.benchmarks.report import Figure, median, single
from multimodal_gen.configs.arguments.engine_args import ResidencyChoice
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.launch.model_path import find_model_files
from multimodal_gen.messages.plan import Ack, Phase, Plan, Work
from multimodal_gen.messages.validation import requests_of
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.layers.quantized.int8 import Int8Storage
from multimodal_gen.runtime.layers.quantized.scaled import ScaledStorage
from multimodal_gen.runtime.layers.quantized.storage import Storage
from multimodal_gen.runtime.managers.gpu_worker import GPUWorker
from multimodal_gen.runtime.managers.rank_device import keep_precision
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.pipelines.registry import load_pipeline
from multimodal_gen.runtime.residency.transfers import transfers_to
from multimodal_gen.runtime.stages.rows import Rows

PROMPT = "a red heart"
STEPS = {"full": 20, "tiny": 2}
_RESIDENCIES: tuple[ResidencyChoice, ...] = ("device", "streamed")
_LEAST_DB = 30.0
_MOST_ERROR = 0.03
"""Relative error of a product with quantised inputs."""
_TOO_MUCH = 2**55
"""Bytes that no device has."""


def bundled(
    device: torch.device, dtype: torch.dtype, residency: ResidencyChoice = "auto"
) -> ComposedPipeline:
    """The bundled model."""
    keep_precision(dtype)
    folder = Path(find_model_files(None, None).folder)
    return load_pipeline(folder, device=device, dtype=dtype, mesh=Mesh(), residency=residency)


def pictures(device: torch.device, scale: Scale) -> Iterator[Figure]:
    """The bundled model's picture on the device, compared with that of the CPU."""
    truth = _picture(torch.device("cpu"), torch.float32, scale)
    same = (_picture(device, torch.float32, scale) - truth).abs().max().item()
    yield single(
        "pictures/float32", "largest difference from the CPU's picture, of 255", same, "", target=1
    )
    narrow = _psnr(_picture(device, torch.bfloat16, scale), truth)
    what = "PSNR of the bfloat16 picture to the CPU's in float32"
    yield single("pictures/bfloat16", what, narrow, "dB", target=_LEAST_DB, bound="at least")


def streamed(device: torch.device, scale: Scale) -> Iterator[Figure]:
    """The bundled model whose blocks are streamed, and the link that they come by."""
    resident, moving = (_picture(device, torch.float32, scale, choice) for choice in _RESIDENCIES)
    difference = (moving - resident).abs().max().item()
    what = "largest difference of a picture whose blocks are streamed, of 255"
    yield single("streamed/picture", what, difference, "", target=0)
    size = 2**30 if scale == "full" else 2**20
    source = torch.arange(size // 8).view(torch.uint8)
    target = torch.empty_like(source, device=device)
    transfers, instruments = transfers_to(device), Instruments(device)

    def copy() -> None:
        transfers.start([(target, source)]).wait()

    seconds = [instruments.seconds(copy)[1] for _ in range(4)][1:]
    wrong = int((target.cpu() != source).sum())
    yield single("streamed/copy", "bytes of weights that arrived wrong", wrong, "", target=0)
    what = "GB a second of weights from pageable memory to the device"
    yield median("streamed/link", what, [size / 1e9 / each for each in seconds], "GB/s")


def _picture(
    device: torch.device,
    dtype: torch.dtype,
    scale: Scale,
    residency: ResidencyChoice = "auto",
) -> Tensor:
    """Pixels [1, H, W, 3] on the CPU, as integers."""
    pipeline = bundled(device, dtype, residency)
    steps = STEPS[scale]
    state = started(pipeline, SamplingParams(prompt=PROMPT, seed=1, num_inference_steps=steps))
    pipeline.forward(Phase.DENOISE, [state], steps)
    pipeline.forward(Phase.DECODE, [state], pipeline.decode_chunks(state.params))
    return torch.cat(state.chunks).cpu().int()


def _psnr(one: Tensor, other: Tensor) -> float:
    error = (one - other).double().square().mean().item()
    return 99.0 if error == 0 else 10 * math.log10(255**2 / error)


def products(device: torch.device, scale: Scale) -> Iterator[Figure]:
    """Products with quantised weights, compared with those of the numbers that they stand for."""
    tokens, columns, rows = (4096, 3072, 12288) if scale == "full" else (32, 64, 128)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    generator = torch.Generator("cpu").manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator).to(device)
    x = torch.randn(tokens, columns, generator=generator).to(device, dtype)
    instruments = Instruments(device)
    for name, make in _FORMS.items():
        storage = make(weight)
        plain = storage.dequantized(dtype)
        error = (storage.product(x) - F.linear(x, plain)).float().norm()
        relative = (error / F.linear(x, plain).float().norm()).item()
        what = f"relative error of a product with {name} weights, {tokens} x {columns} x {rows}"
        yield single(f"products/{name}", what, relative, "", target=_MOST_ERROR)
        fast = min(instruments.seconds(lambda: storage.product(x))[1] for _ in range(5))  # noqa: B023
        slow = min(instruments.seconds(lambda: F.linear(x, plain))[1] for _ in range(5))  # noqa: B023
        what = f"time of that product, relative to one with {plain.dtype} weights"
        yield single(f"products/{name}/time", what, fast / slow, "x")


def _int8(weight: Tensor) -> Storage:
    scales = weight.abs().amax(1, keepdim=True) / 127
    values = (weight / scales).round().to(torch.int8)
    return Int8Storage(values, scales, quantizes_inputs=True)


def _float8(weight: Tensor) -> Storage:
    factor = weight.abs().max() / torch.finfo(torch.float8_e4m3fn).max
    return ScaledStorage("float8_e4m3fn", (weight / factor).to(torch.float8_e4m3fn), factor=factor)


_FORMS: dict[str, Callable[[Tensor], Storage]] = {"int8": _int8, "float8": _float8}


def recovery(device: torch.device, scale: Scale) -> Iterator[Figure]:
    """An evaluation that finds no memory, and the request that goes on after it."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    worker = GPUWorker(bundled(device, dtype))
    untroubled = _generated(worker, scale)
    predict = worker.pipeline.predict

    def exhausted(rows: Rows) -> Tensor:
        worker.pipeline.predict = predict  # type: ignore[method-assign]
        torch.empty(_TOO_MUCH, dtype=torch.uint8, device=device)
        return predict(rows)

    worker.pipeline.predict = exhausted  # type: ignore[method-assign]
    acks: list[Ack] = []
    troubled = _generated(worker, scale, acks)
    told = sum(ack.error is not None and ack.error.code == "out_of_memory" for ack in acks)
    what = "errors that are recognised as out of memory, of 1"
    yield single("recovery/recognised", what, told, "", target=1, bound="at least")
    difference = (troubled - untroubled).abs().max().item()
    what = "largest difference of the request that went on, of 255"
    yield single("recovery/picture", what, difference, "", target=0)


def _generated(worker: GPUWorker, scale: Scale, acks: list[Ack] | None = None) -> Tensor:
    """Pixels of a request that is carried out by plans, with one retry."""
    steps = STEPS[scale]
    params = SamplingParams(prompt=PROMPT, seed=1, num_inference_steps=steps)
    (req,) = requests_of(params, worker.pipeline.model_info("benchmark"))

    def work(phase: Phase, k: int, **plan: Any) -> Any:
        outcome = worker.execute(Plan(number=0, work=Work(phase=phase, ids=(req.id,), k=k), **plan))
        ack, arrays = outcome.ack()
        if acks is not None:
            acks.append(ack)
        return arrays

    work(Phase.ENCODE, 1, admit=(req,))
    solver, _ = worker.states[req.id].running()
    while (done := worker.states[req.id].evaluation) < solver.num_evaluations:
        work(Phase.DENOISE, solver.num_evaluations - done, resume=True)
    (pixels,) = work(Phase.DECODE, worker.pipeline.decode_chunks(req.params))
    worker.execute(Plan(number=0, drop=(req.id,)))
    return torch.from_numpy(pixels).int()
