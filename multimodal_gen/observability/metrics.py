"""Prometheus metrics. Labels are few and bounded: no prompts, no request ids.

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

from multimodal_gen.observability.key_totals import KeyTotals

_PREFIX = "multimodal_gen_"
_LONG = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1200)
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
_BYTES = tuple(4**power for power in range(5, 14))
_STAGES_NOT = frozenset({"queued", "total"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True)
class EngineState:
    """State of an engine at the time of a scrape."""

    name: str
    model: str
    status: str
    in_flight: int
    restarts: int
    ranks_up: Sequence[bool]


@dataclass(frozen=True)
class ModelState:
    """State of a model at the time of a scrape."""

    name: str
    running: int
    waiting: int
    backlog_s: float
    """Predicted seconds of all its requests, on one engine."""
    untaken: int
    """Jobs in a shared ledger that no front has taken."""


@dataclass(frozen=True)
class FleetState:
    """State of all models and engines at the time of a scrape."""

    models: Sequence[ModelState]
    engines: Sequence[EngineState]


class Metrics:
    """Metrics of one server, in their own registry."""

    def __init__(self, fleet_state: Callable[[], FleetState]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_FleetCollector(fleet_state))
        self.keys = KeyTotals()
        """Totals by key; not for every key's eyes."""
        self._requests = self._counter(
            "requests", "Completed, failed or cancelled requests.", "model", "status"
        )
        self._images = self._counter("images", "Images and video frames generated.", "model")
        self._pixels = self._counter("pixels", "Pixels generated.", "model")
        self._latency = self._histogram(
            "request_latency_seconds",
            "Seconds from acceptance to the end of a request.",
            _LONG,
            "model",
        )
        self._queue = self._histogram(
            "queue_time_seconds", "Seconds in the queue, before the first step.", _LONG
        )
        self._stage = self._histogram(
            "stage_host_latency_seconds", "Seconds per request and stage.", _LONG, "stage"
        )
        self._step = self._histogram(
            "denoise_step_seconds", "Mean seconds per denoising step of a request.", _SHORT
        )
        self._batch = self._histogram(
            "generation_batch_size", "Number of requests that shared an evaluation.", _SIZES
        )
        registry = self.registry
        labels = ("handler", "method", "status")
        self._http = Counter("http_requests", "HTTP responses by route.", labels, registry=registry)
        self._http_seconds = Histogram(
            "http_request_duration_seconds",
            "Seconds per HTTP request by route.",
            labels[:2],
            buckets=_LONG,
            registry=registry,
        )
        self._http_size = Histogram(
            "http_request_size_bytes",
            "Size of HTTP response bodies by route, in bytes.",
            labels[:1],
            buckets=_BYTES,
            registry=registry,
        )
        self.http_in_progress = Gauge(
            "http_requests_inprogress", "HTTP requests in progress.", registry=registry
        )

    def ended(self, model: str, status: str, seconds: float) -> None:
        """Record a request that ended as `status`, `seconds` after acceptance."""
        self._requests.labels(model, status).inc()
        self._latency.labels(model).observe(seconds)

    def made(
        self,
        model: str,
        shape: Sequence[int],
        timings: Mapping[str, float],
        batch_sizes: Sequence[int],
    ) -> None:
        """Record an output of `shape` [F, H, W, 3]."""
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
        """Record a response to an HTTP request; `route` is its path template."""
        known = method if method in _METHODS else "other"
        self._http.labels(route, known, status).inc()
        self._http_seconds.labels(route, known).observe(seconds)
        if size:
            self._http_size.labels(route).observe(size)

    def exposition(self, accept: str, *, with_keys: bool) -> tuple[bytes, str]:
        """Return all metrics, or all but those by key, in the format that an Accept header asks
        for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(_Exposed(self, with_keys)), content_type

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
        every = tuple(buckets)
        return Histogram(_PREFIX + name, text, labels, buckets=every, registry=self.registry)


@dataclass(frozen=True)
class _Exposed(Collector):
    """State of the server at one scrape."""

    metrics: Metrics
    with_keys: bool

    def collect(self) -> Iterator[Metric]:
        yield from self.metrics.registry.collect()
        if self.with_keys:
            yield from self.metrics.keys.collect()


class _FleetCollector(Collector):
    """Gauges read at each scrape."""

    def __init__(self, state: Callable[[], FleetState]) -> None:
        self._state = state

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        state = self._state()
        yield from _of_models(state.models)
        yield from _of_engines(state.engines)


def _of_models(models: Sequence[ModelState]) -> Iterator[Metric]:
    labels = ["model"]
    running = _gauge("num_running_reqs", "Started requests.", labels)
    waiting = _gauge("num_queue_reqs", "Waiting requests.", labels)
    text = "Predicted seconds of all requests, waiting and in flight, on one engine."
    backlog = _gauge("predicted_backlog_seconds", text, labels)
    untaken = _gauge("jobs_not_taken", "Jobs in a shared ledger that no front has taken.", labels)
    for model in models:
        running.add_metric([model.name], model.running)
        waiting.add_metric([model.name], model.waiting)
        backlog.add_metric([model.name], model.backlog_s)
        untaken.add_metric([model.name], model.untaken)
    yield from (running, waiting, backlog, untaken)


def _of_engines(engines: Sequence[EngineState]) -> Iterator[Metric]:
    text = "Number of times a dead engine was replaced."
    labels = ["model", "engine"]
    restarts = CounterMetricFamily(_PREFIX + "engine_restarts", text, labels=labels)
    flying = _gauge("engine_in_flight_reqs", "Requests in an engine.", labels)
    status = _gauge("engine_status", "1 for the engine's status.", [*labels, "status"])
    up = _gauge("worker_up", "1 for a rank that is serving.", [*labels, "rank"])
    for engine in engines:
        here = [engine.model, engine.name]
        restarts.add_metric(here, engine.restarts)
        flying.add_metric(here, engine.in_flight)
        status.add_metric([*here, engine.status], 1)
        for rank, serves in enumerate(engine.ranks_up):
            up.add_metric([*here, str(rank)], float(serves))
    yield from (restarts, flying, status, up)


def _gauge(name: str, text: str, labels: Sequence[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, text, labels=labels)
