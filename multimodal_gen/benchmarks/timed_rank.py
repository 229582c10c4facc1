"""A rank that measures itself: `python -m multimodal_gen.benchmarks.timed_rank`.

It is the engine's normal rank, with a timer around `predict` and a memory monitor during loading.
When it ends it writes its measurements to the file that the environment names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from multimodal_gen.benchmarks.anonymous_memory import AnonymousMemory
from multimodal_gen.benchmarks.gap_recorder import GapRecorder
from multimodal_gen.benchmarks.protocol import MEASUREMENTS_FILE, RankMeasurements
from multimodal_gen.messages.rank_args import RankArgs
from multimodal_gen.runtime import rank
from multimodal_gen.runtime.managers.gpu_worker import GPUWorker
from multimodal_gen.runtime.managers.rank_scheduler import RankScheduler


def main() -> None:
    instrument(Path(os.environ[MEASUREMENTS_FILE]))
    rank.main()


def instrument(path: Path) -> None:
    """Instrument this process's worker; `path` is written when it ends."""
    plain_load, plain_run = GPUWorker.load, RankScheduler.run
    memory = AnonymousMemory()

    def load(args: RankArgs, *ways: Any) -> GPUWorker:
        with memory:
            return plain_load(args, *ways)

    def run(self: RankScheduler, worker: GPUWorker) -> None:
        recorder = _attach(worker)
        plain_run(self, worker)
        measurements = RankMeasurements(
            gaps=recorder.gaps(),
            weight_bytes=_weight_bytes(worker.pipeline.components.values()),
            anonymous_before=memory.before,
            anonymous_peak=memory.peak,
        )
        if worker.rank == 0:
            path.write_bytes(msgspec.json.encode(measurements))

    replace_method(GPUWorker, "load", staticmethod(load))
    replace_method(RankScheduler, "run", run)


def _attach(worker: GPUWorker) -> GapRecorder:
    recorder = GapRecorder(worker.device)
    pipeline = worker.pipeline
    replace_method(pipeline, "predict", recorder.around_predict(pipeline.predict))
    replace_method(worker, "execute", recorder.around_plan(worker.execute))
    return recorder


def replace_method(
    owner: object, name: str, function: Callable[..., Any] | staticmethod[..., Any]
) -> None:
    """Put a function in the place of one that exists."""
    assert hasattr(owner, name), name
    setattr(owner, name, function)


def _weight_bytes(components: Any) -> int:
    modules = [part for part in components if isinstance(part, torch.nn.Module)]
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    return sum(tensor.nbytes for tensor in tensors)


if __name__ == "__main__":
    main()
