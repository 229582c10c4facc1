"""An engine whose rank measures itself, and the load that it is measured under."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from multimodal_gen.benchmarks.engine_side import EngineSide
from multimodal_gen.benchmarks.protocol import MEASUREMENTS_FILE, RankMeasurements
from multimodal_gen.benchmarks.workload import Workload
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.runtime.launch.supervisor import Engine

MODULE = "multimodal_gen.benchmarks.timed_rank"
LOADS = (1, 8)
"""Requests at a time."""


def measure_rank(server: ServerArgs, workload: Workload, repeats: int) -> RankMeasurements:
    """Load the model and run each load `repeats` times in an engine of its own."""
    with tempfile.TemporaryDirectory(prefix="multimodal-gen-") as folder:
        path = Path(folder) / "measurements.json"
        os.environ[MEASUREMENTS_FILE] = str(path)
        try:
            with Engine.start(server, rank_module=MODULE) as engine:
                engine.wait_ready()
                side = EngineSide(engine.client)
                for requests in LOADS:
                    for _ in range(repeats):
                        side.seconds_together(workload.jobs(requests), requests)
        finally:
            del os.environ[MEASUREMENTS_FILE]
        return msgspec.json.decode(path.read_bytes(), type=RankMeasurements)
