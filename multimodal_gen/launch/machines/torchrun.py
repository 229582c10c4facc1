"""Arguments of a node, from the environment that torchrun gives its workers.

The first worker of each machine is its node; the others have nothing to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.arguments.machine_args import MachineArgs

Engine = TypeVar("Engine", bound=EngineArgs)


def is_idle_worker(environment: Mapping[str, str]) -> bool:
    """True in a worker of torchrun that is not the first of its machine."""
    return _is_worker(environment) and environment["LOCAL_RANK"] != "0"


def with_torchrun(
    engine: Engine, machines: MachineArgs, environment: Mapping[str, str]
) -> tuple[Engine, MachineArgs]:
    """Fill in what torchrun knows and was not given: the nodes, their ranks, and where node 0 is.

    Raises InvalidRequest. torchrun itself listens on MASTER_PORT, so the next one is taken.
    """
    if not _is_worker(environment) or machines.launcher != "local":
        return engine, machines
    workers = int(environment["WORLD_SIZE"])
    nodes = workers // int(environment["LOCAL_WORLD_SIZE"])
    if nodes == 1 or machines.nnodes > 1:
        return _with_ranks(engine, workers), machines
    host, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"]) + 1
    machines = replace(
        machines,
        nnodes=nodes,
        node_rank=int(environment["GROUP_RANK"]),
        dist_init_addr=machines.dist_init_addr or f"{host}:{port}",
    )
    return _with_ranks(engine, workers), machines


def _with_ranks(engine: Engine, workers: int) -> Engine:
    return engine if engine.num_gpus > 1 else replace(engine, num_gpus=workers)


def _is_worker(environment: Mapping[str, str]) -> bool:
    return "TORCHELASTIC_RUN_ID" in environment
