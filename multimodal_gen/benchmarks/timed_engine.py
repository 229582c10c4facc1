"""An engine whose rank measures itself."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from multimodal_gen.benchmarks.protocol import MEASUREMENTS_FILE, RankMeasurements
from multimodal_gen.benchmarks.workload import BenchmarkRequest
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.launch.engine_process import EngineProcess

MODULE = "multimodal_gen.benchmarks.timed_rank"


def measure_rank(args: EngineArgs, *loads: Sequence[BenchmarkRequest]) -> RankMeasurements:
    """Load the model in an engine of its own; then run one load after another, those of each at
    the same time."""
    with tempfile.TemporaryDirectory(prefix="multimodal-gen-") as folder:
        path = Path(folder) / "measurements.json"
        os.environ[MEASUREMENTS_FILE] = str(path)
        try:
            with EngineProcess.start(args, rank_module=MODULE) as engine:
                engine.wait_ready()
                for requests in loads:
                    _run_together(engine.client, requests)
        finally:
            del os.environ[MEASUREMENTS_FILE]
        return msgspec.json.decode(path.read_bytes(), type=RankMeasurements)


def _run_together(client: SchedulerClient, requests: Sequence[BenchmarkRequest]) -> None:
    handles = [client.submit(request.req) for request in requests]
    for handle in handles:
        handle.result()
