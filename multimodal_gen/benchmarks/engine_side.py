"""Measures this engine from a client's side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from multimodal_gen.benchmarks.workload import BenchmarkRequest
from multimodal_gen.client.request_handle import Output
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.postprocess.images import to_pil


class EngineSide:
    """Runs jobs through a client and waits for the images."""

    def __init__(self, client: SchedulerClient) -> None:
        self.client = client

    def seconds(self, request: BenchmarkRequest) -> float:
        """Seconds from sending a request to having its images."""
        started = time.perf_counter()
        self._finish(request)
        return time.perf_counter() - started

    def seconds_together(self, requests: Sequence[BenchmarkRequest], clients: int) -> float:
        """Seconds until all are done, if each of `clients` sends a request when its last one is
        done."""
        shares = [requests[first::clients] for first in range(clients)]
        started = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(self._finish_all, shares))
        return time.perf_counter() - started

    def outputs(self, requests: Sequence[BenchmarkRequest]) -> list[Output]:
        """Outputs of requests that are sent together."""
        handles = [self.client.submit(request.req) for request in requests]
        return [handle.result() for handle in handles]

    def _finish_all(self, requests: Sequence[BenchmarkRequest]) -> None:
        for request in requests:
            self._finish(request)

    def _finish(self, request: BenchmarkRequest) -> None:
        output = self.client.submit(request.req).result()
        for frame in output.pixels:
            to_pil(frame)
