"""Spans of a trace, as torch's profiler writes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

PLAN, PREDICT, GUIDANCE, SOLVER = "plan", "predict", "guidance", "solver"
GAP = "gap"


@dataclass(frozen=True)
class TraceSpan:
    name: str
    start: float
    """Microseconds."""
    end: float

    @property
    def length(self) -> float:
        return self.end - self.start


def named_spans(events: Iterable[Mapping[str, Any]]) -> dict[str, list[TraceSpan]]:
    """Named parts in order of time: where a GPU worked on them, if there is one, else where the
    host did; plans are the host's."""
    by_kind: dict[str, dict[str, list[TraceSpan]]] = defaultdict(lambda: defaultdict(list))
    for event in events:
        if event.get("cat") in ("user_annotation", "gpu_user_annotation"):
            span = _span(event)
            by_kind[event["cat"]][span.name].append(span)
    found = {**by_kind["user_annotation"], **by_kind["gpu_user_annotation"]}
    if PLAN in by_kind["user_annotation"]:
        found[PLAN] = by_kind["user_annotation"][PLAN]
    return {name: sorted(spans, key=lambda span: span.start) for name, spans in found.items()}


def gaps(evaluations: Sequence[TraceSpan]) -> list[TraceSpan]:
    """Spans between the evaluations."""
    return [TraceSpan(GAP, before.end, after.start) for before, after in pairwise(evaluations)]


def own_times(events: Iterable[Mapping[str, Any]]) -> dict[str, tuple[float, int]]:
    """Microseconds and number of calls by operation: kernels if there are any, else operations of
    the host without those that they call."""
    kept = list(events)
    kernels = [event for event in kept if event.get("cat") == "kernel"]
    if kernels:
        return _summed((event["name"], event["dur"]) for event in kernels)
    threads: dict[Any, list[TraceSpan]] = defaultdict(list)
    for event in kept:
        if event.get("cat") == "cpu_op":
            threads[event["tid"]].append(_span(event))
    return _summed(each for spans in threads.values() for each in _own(spans))


def _own(spans: list[TraceSpan]) -> list[tuple[str, float]]:
    """Time of each span without that of the spans inside it."""
    own: list[float] = []
    open_spans: list[int] = []
    ordered = sorted(spans, key=lambda span: (span.start, -span.end))
    for number, span in enumerate(ordered):
        own.append(span.length)
        while open_spans and ordered[open_spans[-1]].end <= span.start:
            open_spans.pop()
        if open_spans:
            own[open_spans[-1]] -= span.length
        open_spans.append(number)
    return [(span.name, time) for span, time in zip(ordered, own, strict=True)]


def _summed(times: Iterable[tuple[str, float]]) -> dict[str, tuple[float, int]]:
    sums: dict[str, tuple[float, int]] = {}
    for name, time in times:
        total, calls = sums.get(name, (0.0, 0))
        sums[name] = (total + time, calls + 1)
    return dict(sorted(sums.items(), key=lambda item: -item[1][0]))


def _span(event: Mapping[str, Any]) -> TraceSpan:
    start = float(event["ts"])
    return TraceSpan(event["name"], start, start + float(event["dur"]))
