"""Engines and requests for tests that need real ones."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

from multimodal_gen.client.request_handle import RequestHandle
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.messages.pictures import NO_PIXELS, Pixels, headers_of
from multimodal_gen.messages.validation import requests_of


def start_engine(**args: object) -> EngineProcess:
    """An engine on the CPU, with the bundled model unless `args` say otherwise."""
    return EngineProcess.start(ServerArgs(**{"device": "cpu", **args}))


def requests_in(engine: EngineProcess) -> int:
    """Number of requests that an engine has."""
    health = engine.client.health()
    return health.running + health.waiting


def pids_of(engine: EngineProcess) -> list[int]:
    """All processes of an engine."""
    return [engine.scheduler_pid, *engine.pids]


def submit_to(
    engine: EngineProcess,
    prompt: str = "a red heart",
    pictures: Pixels = NO_PIXELS,
    **params: object,
) -> RequestHandle:
    """Submit one request; seed 1 unless `params` say otherwise."""
    model, given = engine.wait_ready(300), SamplingParams(prompt=prompt, **{"seed": 1, **params})
    (req,) = requests_of(given, model, headers_of(pictures))
    return engine.client.submit(req, [*pictures.values()])


def sharing_happens(batch_sizes: Callable[[], Iterable[int]]) -> bool:
    """Whether requests made side by side shared an evaluation in one of many tries: on a busy
    machine the engine may have measured just then that sharing does not pay, and believes that
    for some tries."""
    return any(max(batch_sizes()) > 1 for _ in range(30))


def assert_all_gone(engine: EngineProcess, *, within_s: float = 30) -> None:
    end = time.monotonic() + within_s
    while any(is_running(pid) for pid in pids_of(engine)):
        assert time.monotonic() < end, "processes are left"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
