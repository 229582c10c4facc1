"""The clairvoyant bound: what no service can beat by much."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from multimodal_gen.benchmarks.fleet.workload import SimulatedJob


def run_clairvoyant(jobs: Iterable[SimulatedJob], models: Mapping[str, str]) -> list[SimulatedJob]:
    """Run the jobs with the least time left, as many as a model has engines, at each moment; on any
    engine, without cost of changing (SRPT, optimal for the mean on one server)."""
    jobs = list(jobs)
    for model in set(models.values()):
        engines = sum(each == model for each in models.values())
        _pooled([job for job in jobs if job.kind.model == model], engines)
    return jobs


def _pooled(jobs: list[SimulatedJob], engines: int) -> None:
    """Two heaps: jobs that run, by their end if nothing comes between (as the longest goes first
    out, by the negative end too), and jobs that wait, by the time left."""
    waiting: list[tuple[float, int, SimulatedJob]] = []
    running: dict[int, tuple[float, SimulatedJob]] = {}
    ends: list[tuple[float, int]] = []
    latest: list[tuple[float, int]] = []

    def start(left: float, number: int, job: SimulatedJob, now: float) -> None:
        running[number] = now + left, job
        heapq.heappush(ends, (now + left, number))
        heapq.heappush(latest, (-now - left, number))

    def finish_until(time: float) -> None:
        while ends and ends[0][0] <= time:
            at, number = heapq.heappop(ends)
            if number not in running or running[number][0] != at:
                continue
            _, job = running.pop(number)
            job.ends.append((at, "done"))
            if waiting:
                start(*heapq.heappop(waiting), at)

    for number, job in enumerate(jobs):
        now = job.arrives
        finish_until(now)
        if len(running) == engines:
            while latest[0][1] not in running or running[latest[0][1]][0] != -latest[0][0]:
                heapq.heappop(latest)
            end, longest = -latest[0][0], latest[0][1]
            if end - now <= job.kind.alone_s:
                heapq.heappush(waiting, (job.kind.alone_s, number, job))
                continue
            _, displaced = running.pop(longest)
            heapq.heappush(waiting, (end - now, longest, displaced))
        start(job.kind.alone_s, number, job, now)
    finish_until(float("inf"))
