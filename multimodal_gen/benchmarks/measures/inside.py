"""What a rank knows of itself: the host's part between evaluations, and memory while loading."""

from __future__ import annotations

import statistics

from multimodal_gen.benchmarks.protocol import Gap
from multimodal_gen.benchmarks.report import Figure
from multimodal_gen.benchmarks.session import Session
from multimodal_gen.benchmarks.timed_engine import measure_rank

LOADS = (1, 8)
"""Requests at a time."""
LEAST_REPEATS = 5
"""So many times the model's steps are run at least, so that the requests are together for most."""
GAP_TARGET_US = 200.0
"""1 % of an evaluation of 20 ms."""
MEMORY_TARGET = 1.15
LARGE_BYTES = 1_000_000_000
"""Weights from which on memory has a target: below, the libraries weigh more than the weights."""


def host_gap(session: Session) -> list[Figure]:
    """Between evaluations of one batch, the solvers' own work taken off."""
    defaults, limits = session.model.defaults, session.model.limits
    steps = defaults.num_inference_steps * max(session.repeats, LEAST_REPEATS)
    session.say("host gap: running a rank that times itself")
    loads = [
        session.workload.requests(requests, num_inference_steps=min(limits.max_steps, steps))
        for requests in LOADS
    ]
    gaps = measure_rank(session.engine_args, *loads).gaps
    figures = []
    for requests in LOADS:
        of_load = [gap for gap in gaps if gap.requests == requests]
        across = [gap for gap in of_load if gap.across_plans]
        figures += _gap_figure(f"host_gap/{requests}", f"{requests} at a time", of_load)
        figures += _gap_figure(
            f"host_gap/{requests}/plans", f"{requests} at a time, from one plan to the next", across
        )
    return figures


def _gap_figure(name: str, what: str, gaps: list[Gap]) -> list[Figure]:
    if not gaps:
        return []
    micros = sorted(gap.seconds * 1e6 for gap in gaps)
    return [
        Figure(
            name=name,
            what=f"microseconds between two evaluations, {what} (median; 10 % to 90 %)",
            value=statistics.median(micros),
            unit="us",
            low=micros[len(micros) // 10],
            high=micros[len(micros) * 9 // 10],
            target=GAP_TARGET_US,
            details={"count": len(micros)},
        )
    ]


def memory(session: Session) -> list[Figure]:
    """The target holds for checkpoints of 1 GB or more."""
    session.say("memory: loading in a rank that watches itself")
    measured = measure_rank(session.engine_args)
    peak = measured.anonymous_peak - measured.anonymous_before
    value = peak / measured.weight_bytes
    return [
        Figure(
            name="memory",
            what="peak anonymous memory while loading over the weights as they are kept",
            value=value,
            unit="x",
            low=value,
            high=value,
            target=MEMORY_TARGET if measured.weight_bytes >= LARGE_BYTES else None,
            details={"peak_bytes": peak, "weight_bytes": measured.weight_bytes},
        )
    ]
