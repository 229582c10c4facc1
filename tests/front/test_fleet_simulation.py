"""Eight engines and two thousand jobs in simulated time, under production's router and policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean

import pytest

from multimodal_gen.benchmarks.fleet.bound import run_clairvoyant
from multimodal_gen.benchmarks.fleet.engine import PolicyEngine, SimulatedEngine, WholeJobEngine
from multimodal_gen.benchmarks.fleet.routers import LeastConnections
from multimodal_gen.benchmarks.fleet.simulation import SimulatedFleet
from multimodal_gen.benchmarks.fleet.table import late, quantile, slowdowns
from multimodal_gen.benchmarks.fleet.workload import KINDS, SimulatedJob, engines_of, jobs
from multimodal_gen.scheduling.fleet.router import Router

ENGINES, JOBS, LOAD, SEED = 8, 2000, 0.9, 1
LIFE_S = 2000.0
"""Mean time until an engine dies: several of them do."""


@dataclass
class Outcome:
    jobs: list[SimulatedJob]
    deaths: int = 0

    @property
    def mean(self) -> float:
        return mean(slowdowns(self.jobs))

    @property
    def p95(self) -> float:
        return quantile(slowdowns(self.jobs), 0.95)


def workload() -> list[SimulatedJob]:
    return list(jobs(JOBS, load=LOAD, engines=ENGINES, seed=SEED))


def served(router: Router, engine: Callable[[], SimulatedEngine], in_flight: int = 32) -> Outcome:
    fleet = SimulatedFleet(router, engines_of(ENGINES), engine, in_flight=in_flight, life_s=LIFE_S)
    return Outcome(fleet.run(workload()), fleet.deaths)


@pytest.fixture(scope="module")
def ours() -> Outcome:
    return served(Router(), PolicyEngine)


@pytest.fixture(scope="module")
def least_connections() -> Outcome:
    return served(LeastConnections(), PolicyEngine)


@pytest.fixture(scope="module")
def fifo() -> Outcome:
    return served(LeastConnections(), WholeJobEngine, in_flight=1)


def test_every_job_ends_once_though_engines_die(ours: Outcome) -> None:
    assert ours.deaths >= 5
    assert len(ours.jobs) == JOBS
    assert all(len(job.ends) == 1 for job in ours.jobs)
    ended = [job.ends[0][1] for job in ours.jobs]
    assert ended.count("done") > 0.95 * JOBS
    assert ended.count("failed") < 0.001 * JOBS


def test_it_is_quicker_than_least_connections(ours: Outcome, least_connections: Outcome) -> None:
    assert ours.mean < 0.95 * least_connections.mean
    assert ours.p95 < 0.9 * least_connections.p95
    assert late(ours.jobs)[0] <= late(least_connections.jobs)[0]


def test_it_is_quicker_than_first_in_first_out(ours: Outcome, fifo: Outcome) -> None:
    assert ours.mean < 0.5 * fifo.mean
    assert ours.p95 < 0.5 * fifo.p95
    assert late(ours.jobs)[0] < 0.5 * late(fifo.jobs)[0]


def test_it_is_near_the_clairvoyant_bound_although_engines_die(ours: Outcome) -> None:
    bound = Outcome(run_clairvoyant(workload(), engines_of(ENGINES)))
    assert bound.mean < ours.mean < 1.75 * bound.mean


def test_no_kind_of_job_starves(ours: Outcome) -> None:
    for kind in KINDS:
        assert mean(slowdowns(ours.jobs, kind)) < 3, kind
