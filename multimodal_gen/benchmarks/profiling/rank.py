"""A rank that profiles itself: `python -m multimodal_gen.benchmarks.profiling.rank`.

It is the engine's normal rank, whose plans, phases, evaluations, guidance and solvers are named in
torch's profiler. When it ends it writes the trace of the last request to the file that the
environment names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from multimodal_gen.benchmarks.profiling.spans import GUIDANCE, PLAN, PREDICT, SOLVER
from multimodal_gen.benchmarks.protocol import MEASUREMENTS_FILE
from multimodal_gen.benchmarks.timed_rank import replace_method
from multimodal_gen.messages.plan import Phase, Plan
from multimodal_gen.runtime import rank
from multimodal_gen.runtime.managers.gpu_worker import GPUWorker
from multimodal_gen.runtime.managers.rank_scheduler import RankScheduler
from multimodal_gen.runtime.stages.steps import Steps

_Call = Callable[..., Any]
_PROFILED = 2
"""Number of the request that is profiled: the first one warms up."""


def main() -> None:
    instrument(Path(os.environ[MEASUREMENTS_FILE]))
    rank.main()


def instrument(path: Path) -> None:
    """Instrument this process's worker; the first rank writes `path` when it ends."""
    plain_run = RankScheduler.run

    def run(self: RankScheduler, worker: GPUWorker) -> None:
        profiler = _profiler(worker.device)
        _name_parts(worker, profiler)
        plain_run(self, worker)
        profiler.stop()
        if worker.rank == 0:
            profiler.export_chrome_trace(str(path))

    replace_method(RankScheduler, "run", run)


def _profiler(device: torch.device) -> profile:
    on_gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    return profile(activities=[ProfilerActivity.CPU, *on_gpu])


def _name_parts(worker: GPUWorker, profiler: profile) -> None:
    pipeline = worker.pipeline
    forward = pipeline.forward

    def phase(which: Phase, *args: Any) -> None:
        with record_function(which.name.lower()):
            forward(which, *args)

    replace_method(pipeline, "forward", phase)
    replace_method(pipeline, "predict", _named(PREDICT, pipeline.predict))
    guidance = pipeline.guidance
    replace_method(guidance, "guide_all", _named(GUIDANCE, guidance.guide_all))
    for name in ("inputs", "take"):
        replace_method(Steps, name, _named(SOLVER, getattr(Steps, name)))
    replace_method(worker, "execute", _started_by(profiler, _named(PLAN, worker.execute)))


def _named(name: str, call: _Call) -> _Call:
    def named(*args: Any) -> Any:
        with record_function(name):
            return call(*args)

    return named


def _started_by(profiler: profile, execute: _Call) -> _Call:
    """Start the profiler with the plan that admits the request."""
    admitted = 0

    def counted(plan: Plan, *args: Any) -> Any:
        nonlocal admitted
        before, admitted = admitted, admitted + len(plan.admit)
        if before < _PROFILED <= admitted:
            profiler.start()
        return execute(plan, *args)

    return counted


if __name__ == "__main__":
    main()
