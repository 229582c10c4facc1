"""Measures inside a rank: host time between evaluations, and memory during loading."""

from __future__ import annotations

import statistics

from multimodal_gen.benchmarks.protocol import Gap
from multimodal_gen.benchmarks.report import Figure
from multimodal_gen.benchmarks.session import Session
from multimodal_gen.benchmarks.timed_engine import measure_rank

LOADS = (1, 8)
"""Numbers of concurrent requests: a single one, and some that share batches, of whatever size the
policy chooses."""
LEAST_REPEATS = 5
"""Minimum repeats of the model's steps, so that requests are batched together most of the time."""
GAP_TARGET_US = 200.0
"""1 % of an evaluation of 20 ms."""
MEMORY_TARGET = 1.15
LARGE_BYTES = 1_000_000_000
"""Weight size above which memory has a target; in smaller models the libraries dominate."""


def host_gap(session: Session) -> list[Figure]:
    """Microseconds between evaluations of one batch, guidance and solvers included."""
    defaults, limits = session.model.defaults, session.model.limits
    steps = defaults.num_inference_steps * max(session.repeats, LEAST_REPEATS)
    session.say("host gap: running an instrumented rank")
    loads = [
        session.workload.requests(requests, num_inference_steps=min(limits.max_steps, steps))
        for requests in LOADS
    ]
    gaps = measure_rank(session.engine_args, *loads).gaps
    figures = []
    for requests in LOADS:
        of_load = [gap for gap in gaps if (gap.requests > 1) == (requests > 1)]
        across = [gap for gap in of_load if gap.across_plans]
        figures += _gap_figure(f"host_gap/{requests}", f"{requests} concurrent", of_load)
        figures += _gap_figure(
            f"host_gap/{requests}/plans",
            f"{requests} concurrent, from one plan to the next",
            across,
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
            what="peak anonymous memory during loading, relative to the size of the weights",
            value=value,
            unit="x",
            low=value,
            high=value,
            target=MEMORY_TARGET if measured.weight_bytes >= LARGE_BYTES else None,
            details={"peak_bytes": peak, "weight_bytes": measured.weight_bytes},
        )
    ]
