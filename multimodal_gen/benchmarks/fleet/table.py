"""Tables of what became of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from multimodal_gen.benchmarks.fleet.workload import KINDS, SimulatedJob


def quantile(values: Sequence[float], part: float) -> float:
    """A quantile of values in order."""
    return values[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def slowdowns(jobs: Sequence[SimulatedJob], kind: str | None = None) -> list[float]:
    """Slowdowns of all jobs that are done, or those of a kind, in order."""
    return sorted(
        job.slowdown for job in jobs if job.ends[0][1] == "done" and kind in (None, job.name)
    )


def late(jobs: Sequence[SimulatedJob]) -> tuple[int, int]:
    """Jobs whose deadlines were missed or refused, and all with a deadline that weren't
    cancelled."""
    hurried = [job for job in jobs if job.deadline is not None and job.ends[0][1] != "cancelled"]
    missed = [job for job in hurried if _missed(job)]
    return len(missed), len(hurried)


def _missed(job: SimulatedJob) -> bool:
    at, how = job.ends[0]
    assert job.deadline is not None
    return how != "done" or at > job.deadline


def rows(name: str, jobs: Sequence[SimulatedJob], decisions_s: Sequence[float]) -> list[str]:
    """Lines of a table: all jobs, and each kind."""
    missed, hurried = late(jobs)
    times = sorted(decisions_s)
    decided = (
        ""
        if not times
        else (f" | a decision {mean(times) * 1e6:.0f} us, 99 % {quantile(times, 0.99) * 1e6:.0f}")
    )
    lines = [f"{name}: {_figures(slowdowns(jobs))} | late {missed} of {hurried}{decided}"]
    return lines + [f"  {kind:<24}{_figures(slowdowns(jobs, kind))}" for kind in KINDS]


def _figures(values: Sequence[float]) -> str:
    if not values:
        return "none"
    parts = (0.5, 0.95, 0.99)
    quantiles = "  ".join(f"{part:.0%} {quantile(values, part):7.2f}" for part in parts)
    return f"slowdown mean {mean(values):7.2f}  {quantiles}"
