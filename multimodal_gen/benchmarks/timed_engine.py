"""An engine whose rank measures itself, and the load that it is measured under."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from multimodal_gen.benchmarks.protocol import MEASUREMENTS_FILE, RankMeasurements
from multimodal_gen.benchmarks.workload import Job, Workload
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.runtime.launch.supervisor import Engine
from multimodal_gen.runtime.scheduler_client import SchedulerClient

MODULE = "multimodal_gen.benchmarks.timed_rank"
LOADS = (1, 8)
"""Requests at a time."""
LEAST_REPEATS = 5
"""So many times the model's steps are run at least, so that the requests are together for most."""


def measure_rank(server: ServerArgs, workload: Workload, repeats: int) -> RankMeasurements:
    """Load the model in an engine of its own, and run each load for many steps."""
    defaults, limits = workload.model.defaults, workload.model.limits
    steps = min(limits.max_steps, defaults.num_inference_steps * max(repeats, LEAST_REPEATS))
    with tempfile.TemporaryDirectory(prefix="multimodal-gen-") as folder:
        path = Path(folder) / "measurements.json"
        os.environ[MEASUREMENTS_FILE] = str(path)
        try:
            with Engine.start(server, rank_module=MODULE) as engine:
                engine.wait_ready()
                for requests in LOADS:
                    _run_together(engine.client, workload.jobs(requests, num_inference_steps=steps))
        finally:
            del os.environ[MEASUREMENTS_FILE]
        return msgspec.json.decode(path.read_bytes(), type=RankMeasurements)


def _run_together(client: SchedulerClient, jobs: Sequence[Job]) -> None:
    generations = [client.submit(job.req) for job in jobs]
    for generation in generations:
        generation.result()
