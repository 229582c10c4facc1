"""What Prometheus reads. Labels are few and bounded: never a prompt, never a request's id.

Names follow SGLang's (`sglang:diffusion_num_queue_reqs` is `multimodal_gen_num_queue_reqs` here);
those of the HTTP layer follow prometheus-fastapi-instrumentator's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

_PREFIX = "multimodal_gen_"
_LONG = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1200)
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
_BYTES = tuple(4**power for power in range(5, 14))
_STAGES_NOT = frozenset({"queued", "total"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True)
class EngineState:
    """How the engine is when Prometheus asks."""

    running: int
    waiting: int
    restarts: int
    ranks_up: Sequence[bool]


class Metrics:
    """One server's, in a registry of their own."""

    def __init__(self, engine_state: Callable[[], EngineState]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_EngineCollector(engine_state))
        self._requests = self._counter("requests", "Requests that ended.", "model", "status")
        self._images = self._counter("images", "Pictures and frames that were made.", "model")
        self._pixels = self._counter("pixels", "Pixels that were made.", "model")
        self._latency = self._histogram(
            "request_latency_seconds", "From acceptance to the end.", _LONG, "model"
        )
        self._queue = self._histogram("queue_time_seconds", "Before the first step.", _LONG)
        self._stage = self._histogram(
            "stage_host_latency_seconds", "Of a request in a stage.", _LONG, "stage"
        )
        self._step = self._histogram("denoise_step_seconds", "Mean of a request's.", _SHORT)
        self._batch = self._histogram(
            "generation_batch_size", "Requests that shared an evaluation.", _SIZES
        )
        registry = self.registry
        labels = ("handler", "method", "status")
        self._http = Counter("http_requests", "Answers by route.", labels, registry=registry)
        self._http_seconds = Histogram(
            "http_request_duration_seconds",
            "By route.",
            labels[:2],
            buckets=_LONG,
            registry=registry,
        )
        self._http_size = Histogram(
            "http_request_size_bytes",
            "Of bodies, by route.",
            labels[:1],
            buckets=_BYTES,
            registry=registry,
        )
        self.http_in_progress = Gauge(
            "http_requests_inprogress", "Being answered.", registry=registry
        )

    def ended(self, model: str, status: str, seconds: float) -> None:
        """A request ended as `status`, `seconds` after it was accepted."""
        self._requests.labels(model, status).inc()
        self._latency.labels(model).observe(seconds)

    def made(
        self,
        model: str,
        shape: Sequence[int],
        timings: Mapping[str, float],
        batch_sizes: Sequence[int],
    ) -> None:
        """An output of `shape` [F, H, W, 3] is there."""
        self._images.labels(model).inc(shape[0])
        self._pixels.labels(model).inc(shape[0] * shape[1] * shape[2])
        if "queued" in timings:
            self._queue.observe(timings["queued"])
        for stage in timings.keys() - _STAGES_NOT:
            self._stage.labels(stage).observe(timings[stage])
        if batch_sizes and "denoise" in timings:
            self._step.observe(timings["denoise"] / len(batch_sizes))
        for size in batch_sizes:
            self._batch.observe(size)

    def answered(self, route: str, method: str, status: int, seconds: float, size: int) -> None:
        """An HTTP request to the route of that template was answered."""
        known = method if method in _METHODS else "other"
        self._http.labels(route, known, status).inc()
        self._http_seconds.labels(route, known).observe(seconds)
        if size:
            self._http_size.labels(route).observe(size)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All of it, in the format that an Accept header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
        every = tuple(buckets)
        return Histogram(_PREFIX + name, text, labels, buckets=every, registry=self.registry)


class _EngineCollector(Collector):
    """Gauges that are looked up, not kept."""

    def __init__(self, state: Callable[[], EngineState]) -> None:
        self._state = state

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        state = self._state()
        for name, text, value in (
            ("num_running_reqs", "Requests that the engine has begun.", state.running),
            ("num_queue_reqs", "Requests that wait.", state.waiting),
        ):
            yield GaugeMetricFamily(_PREFIX + name, text, value=value)
        text = "Times that another engine took the place of one that died."
        yield CounterMetricFamily(_PREFIX + "engine_restarts", text, value=state.restarts)
        up = GaugeMetricFamily(_PREFIX + "worker_up", "1 for a rank that serves.", labels=["rank"])
        for rank, serves in enumerate(state.ranks_up):
            up.add_metric([str(rank)], float(serves))
        yield up
