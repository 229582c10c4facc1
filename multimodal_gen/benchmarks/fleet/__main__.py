"""Prints how a fleet serves a day's jobs: `python -m multimodal_gen.benchmarks.fleet`."""

from __future__ import annotations

import argparse
import time

from multimodal_gen.benchmarks.fleet.bound import run_clairvoyant
from multimodal_gen.benchmarks.fleet.engine import PolicyEngine, WholeJobEngine
from multimodal_gen.benchmarks.fleet.routers import LeastConnections
from multimodal_gen.benchmarks.fleet.simulation import SimulatedFleet
from multimodal_gen.benchmarks.fleet.table import rows
from multimodal_gen.benchmarks.fleet.workload import engines_of, jobs
from multimodal_gen.scheduling.fleet.router import Router


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--load", type=float, default=0.8)
    parser.add_argument("--life-s", type=float, default=7200.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    models = engines_of(args.engines)
    fleets = {
        "work ahead": SimulatedFleet(Router(), models, PolicyEngine, life_s=args.life_s),
        "least connections": SimulatedFleet(
            LeastConnections(), models, PolicyEngine, life_s=args.life_s
        ),
        "first in, first out": SimulatedFleet(
            LeastConnections(), models, WholeJobEngine, in_flight=1, life_s=args.life_s
        ),
    }
    for name, fleet in fleets.items():
        began = time.monotonic()
        done = fleet.run(jobs(args.jobs, load=args.load, engines=args.engines, seed=args.seed))
        print("\n".join(rows(name, done, fleet.decisions_s)))
        print(f"  {fleet.deaths} engines died; {time.monotonic() - began:.0f} s", flush=True)
    bound = run_clairvoyant(
        jobs(args.jobs, load=args.load, engines=args.engines, seed=args.seed), models
    )
    print("\n".join(rows("clairvoyant bound", bound, ())))


if __name__ == "__main__":
    main()
