"""Profiles one request, and tells where its time goes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from multimodal_gen.benchmarks.profiling.spans import (
    GAP,
    GUIDANCE,
    PLAN,
    PREDICT,
    SOLVER,
    TraceSpan,
    gaps,
    named_spans,
    own_times,
)
from multimodal_gen.benchmarks.timed_engine import run_rank
from multimodal_gen.benchmarks.workload import BenchmarkRequest, Workload
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.plan import Phase

_RANK = "multimodal_gen.benchmarks.profiling.rank"
_OPERATIONS = 12
_PHASES = [phase.name.lower() for phase in Phase]
_DENOISE = Phase.DENOISE.name.lower()


def write_profile(args: EngineArgs, path: Path, say: Callable[[str], None]) -> str:
    """Write the trace of one request to `path`, and return a table of its time."""
    say("profile: running an instrumented rank")
    trace = json.loads(run_rank(_RANK, args, _loads))
    spans = named_spans(trace["traceEvents"])
    between = gaps(spans[PREDICT])
    lines = [*shares(spans), _gap_line(between), "", *_operations(own_times(trace["traceEvents"]))]
    trace["traceEvents"] += _events(between)
    path.write_text(json.dumps(trace))
    return "\n".join([*lines, "", f"timeline: {path} (for chrome://tracing or ui.perfetto.dev)"])


def _loads(model: ModelInfo) -> list[list[BenchmarkRequest]]:
    """One request that warms up, and one that is profiled."""
    return [[request] for request in Workload(model).requests(2)]


def shares(spans: Mapping[str, Sequence[TraceSpan]]) -> list[str]:
    """Lines that tell how the time from the first plan to the end of the last one is shared."""
    time = {name: sum(span.length for span in each) for name, each in spans.items()}
    every = [span for each in spans.values() for span in each]
    whole = max(span.end for span in every) - min(span.start for span in every)
    of_plans, phases = time[PLAN], {name: time[name] for name in _PHASES if name in time}
    parts = {name: time.get(name, 0.0) for name in (PREDICT, GUIDANCE, SOLVER)}
    rows = {name: took for name, took in phases.items() if name != _DENOISE}
    rows |= parts
    rows["rest of denoise"] = phases.get(_DENOISE, 0.0) - sum(parts.values())
    rows["rest of plans"] = of_plans - sum(phases.values())
    rows["between plans"] = whole - of_plans
    lines = [f"{'part':16} {'ms':>9}  {'share':>6}  calls"]
    for name, took in rows.items():
        calls = len(spans.get(name, ()))
        lines.append(f"{name:16} {took / 1000:9.2f}  {took / whole:6.1%}  {calls or ''}".rstrip())
    return [*lines, f"{'request':16} {whole / 1000:9.2f}"]


def _gap_line(between: Sequence[TraceSpan]) -> str:
    if not between:
        return ""
    median = statistics.median(span.length for span in between)
    return (
        f"{len(between)} gaps between evaluations, guidance and solver included: "
        f"median {median:.0f} us"
    )


def _operations(times: Mapping[str, tuple[float, int]]) -> list[str]:
    whole = sum(time for time, _ in times.values())
    lines = [f"{'operation':60} {'ms':>9}  {'share':>6}  calls"]
    for name, (time, calls) in [*times.items()][:_OPERATIONS]:
        lines.append(f"{name[:60]:60} {time / 1000:9.2f}  {time / whole:6.1%}  {calls}")
    return lines


def _events(between: Sequence[TraceSpan]) -> list[dict[str, Any]]:
    """The gaps as a thread of their own."""
    own = {"pid": "between evaluations", "tid": 0, "cat": GAP, "ph": "X"}
    return [{**own, "name": span.name, "ts": span.start, "dur": span.length} for span in between]
