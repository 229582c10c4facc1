"""A batch is joined where that shortens the mean time of all: by what it saves, and who waits."""

from __future__ import annotations

from statistics import mean

import pytest
from policy_simulation import Simulation, Time, cost_model, request

from multimodal_gen.scheduling.policy import Policy

STEP_S, STEPS = 0.094, 28


def saving(share: float) -> Time:
    """A batch saves this share of each of its members but the first."""
    return lambda n: STEP_S * (n * (1 - share) + share)


def eight_at_once(time: Time, *, max_batch: int = 16) -> Simulation:
    simulation = Simulation(Policy(cost_model(), max_batch=max_batch, max_queue=100), time)
    for index in range(8):
        simulation.arrive(0.001 * index, request(str(index), steps=STEPS))
    simulation.run()
    return simulation


def mean_time(simulation: Simulation) -> float:
    return mean(done.took for done in simulation.done.values())


def shared(simulation: Simulation) -> int:
    """Evaluations of more than one request."""
    return sum(len(work.ids) > 1 for _, work, _ in simulation.works if work.phase == "denoise")


@pytest.mark.parametrize("share", [0.0, 0.03])
def test_eight_equal_pictures_run_one_by_one_where_sharing_saves_little(share: float) -> None:
    one_by_one = eight_at_once(saving(share), max_batch=1)
    together = eight_at_once(saving(share))
    assert mean_time(together) <= 1.05 * mean_time(one_by_one)
    assert shared(together) <= STEPS / 2, "only to learn what sharing costs"


def test_eight_equal_pictures_share_where_that_saves_much() -> None:
    together = eight_at_once(saving(0.6))
    call_of_eight = STEPS * saving(0.6)(8) + 8 * (together.encode_s + together.decode_s)
    assert mean_time(together) <= 1.02 * call_of_eight
    assert shared(together) >= STEPS


def test_many_that_wait_make_a_small_saving_worth_sharing() -> None:
    simulation = Simulation(Policy(cost_model(), max_batch=4, max_queue=1000), saving(0.1))
    for index in range(200):
        simulation.arrive(0.001 * index, request(str(index), steps=4))
    simulation.run()
    assert shared(simulation) >= 100
