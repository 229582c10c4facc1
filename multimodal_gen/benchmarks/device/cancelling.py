"""Measures an engine on the device from a client's side: how soon a cancelled request is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import torch

from multimodal_gen.benchmarks.names import Scale
from multimodal_gen.benchmarks.report import Figure, median
from multimodal_gen.benchmarks.workload import Workload
from multimodal_gen.client.request_handle import Update
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.errors import Cancelled
from multimodal_gen.launch.engine_process import EngineProcess

_TRIES = {"full": 5, "tiny": 2}
_SIDE = {"full": 512, "tiny": 96}


def cancelling(device: torch.device, scale: Scale) -> Iterator[Figure]:
    """Yield the time until a cancelled request has ended, and until the next has its picture."""
    args = EngineArgs(device="cuda" if device.type == "cuda" else "cpu")
    with EngineProcess.start(args) as engine:
        engine.wait_ready()
        client, model = engine.client, engine.client.model
        assert model is not None
        workload = Workload(model)
        times = [_cancel(client, workload, _SIDE[scale]) for _ in range(1 + _TRIES[scale])]
    ended, following = zip(*times[1:], strict=True)
    yield median("cancel/ended", "ms from cancelling to the request's end", ended, "ms")
    what = "ms from cancelling to the picture of another request of one step"
    yield median("cancel/next", what, following, "ms")


def _cancel(client: SchedulerClient, workload: Workload, side: int) -> tuple[float, float]:
    long = workload.request(
        width=side, height=side, num_inference_steps=workload.model.limits.max_steps
    )
    handle = client.submit(long.req)
    next(event for event in handle if isinstance(event, Update) and event.step > 0)
    started = time.perf_counter()
    handle.cancel()
    following = client.submit(workload.request(num_inference_steps=1).req)
    with suppress(Cancelled):
        handle.result()
    ended = time.perf_counter()
    following.result()
    return 1000 * (ended - started), 1000 * (time.perf_counter() - started)
