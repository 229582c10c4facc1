"""An engine whose rank measures itself."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from multimodal_gen.benchmarks.protocol import MEASUREMENTS_FILE, RankMeasurements
from multimodal_gen.benchmarks.workload import BenchmarkRequest
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.messages.model_info import ModelInfo

MODULE = "multimodal_gen.benchmarks.timed_rank"
LoadsOf = Callable[[ModelInfo], Sequence[Sequence[BenchmarkRequest]]]
"""Requests of each load, which run at the same time."""


def measure_rank(args: EngineArgs, *loads: Sequence[BenchmarkRequest]) -> RankMeasurements:
    """Load the model in an engine of its own; then run one load after another, those of each at
    the same time."""
    return msgspec.json.decode(run_rank(MODULE, args, lambda _: loads), type=RankMeasurements)


def run_rank(module: str, args: EngineArgs, loads_of: LoadsOf) -> bytes:
    """The same with a rank that is this module, and loads for its model; returns what it wrote."""
    with tempfile.TemporaryDirectory(prefix="multimodal-gen-") as folder:
        path = Path(folder) / "measurements.json"
        os.environ[MEASUREMENTS_FILE] = str(path)
        try:
            with EngineProcess.start(args, rank_module=module) as engine:
                engine.wait_ready()
                assert engine.client.model is not None
                for requests in loads_of(engine.client.model):
                    _run_together(engine.client, requests)
        finally:
            del os.environ[MEASUREMENTS_FILE]
        return path.read_bytes()


def _run_together(client: SchedulerClient, requests: Sequence[BenchmarkRequest]) -> None:
    handles = [client.submit(request.req) for request in requests]
    for handle in handles:
        handle.result()
