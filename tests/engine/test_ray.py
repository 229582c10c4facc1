"""Ranks that a Ray cluster of two nodes runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import psutil
import pytest
from engines import is_running, submit_to

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.arguments.machine_args import MachineArgs
from multimodal_gen.errors import EngineDied
from multimodal_gen.launch.engine_process import EngineProcess

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
"""Ray's own warnings are of no interest."""


@pytest.fixture
def cluster() -> Iterator[None]:
    import ray
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "object_store_memory": 80_000_000}
    made = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    made.add_node(**options)
    made.wait_for_nodes()
    ray.init(address=made.address)
    yield
    ray.shutdown()
    made.shutdown()


def actors() -> list[psutil.Process]:
    """Those of ranks, as processes."""
    children = psutil.Process().children(recursive=True)
    everyone = {*children, *psutil.process_iter()}
    return [each for each in everyone if each.name().startswith("ray::RankActor")]


def test_a_ray_cluster_gives_the_pictures_of_one_machine_and_an_actor_is_its_rank(
    engine: EngineProcess, cluster: None
) -> None:
    wanted = submit_to(engine, seed=3).result(300).pixels
    args, machines = EngineArgs(device="cpu", num_gpus=2), MachineArgs(nnodes=2, launcher="ray")
    with EngineProcess.start(args, machines=machines) as placed:
        placed.wait_ready(300)
        pixels = submit_to(placed, seed=3).result(300).pixels
        assert np.abs(pixels.astype(int) - wanted).max() <= 1
        running = actors()
        ranks = [child.pid for actor in running for child in actor.children()]
        assert len(ranks) == 2
        request = submit_to(placed, num_inference_steps=500)
        running[0].kill()
        with pytest.raises(EngineDied, match=r"actor was lost|is silent"):
            request.result(60)
    psutil.wait_procs(running, timeout=30)
    for _ in range(300):
        if not any(map(is_running, ranks)):
            break
        psutil.Process().cpu_percent(0.1)
    assert not any(map(is_running, ranks))
