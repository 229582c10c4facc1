"""Requests in different phases don't chase each other's weights through the bus."""

import random
from itertools import permutations

import pytest
from policy_simulation import Simulation, cost_model, linear, request

from multimodal_gen.messages.plan import Phase, PhaseSwitch
from multimodal_gen.messages.request import Standing
from multimodal_gen.scheduling.policy import Policy

SWITCH_S = 1.5
SWITCHES = tuple(PhaseSwitch(a, b, SWITCH_S) for a, b in permutations(Phase, 2))
PAIRS = {(each.before, each.after): each.seconds for each in SWITCHES}


def simulate(*, aware: bool, max_batch: int = 1) -> Simulation:
    """A device whose weights take a while between phases; a policy that is not `aware` of that is
    the naive one."""
    cost = cost_model(switches=SWITCHES if aware else ())
    policy = Policy(cost, max_batch=max_batch, max_queue=100)
    return Simulation(policy, linear(0.1, 0.05), encode_s=0.05, decode_s=0.2, switches=PAIRS)


def eight_in_all_phases(simulation: Simulation, seed: int, within_s: float = 0.5) -> Simulation:
    """Eight requests of different length, which soon are in all phases."""
    rng = random.Random(seed)
    for number in range(8):
        steps = rng.choice([8, 12, 20, 28])
        simulation.arrive(rng.uniform(0, within_s), request(str(number), steps=steps))
    simulation.run()
    assert len(simulation.done) == 8
    return simulation


@pytest.mark.parametrize("within_s", [0.0, 0.5])
def test_eight_requests_change_phases_at_most_a_quarter_as_often(within_s: float) -> None:
    naive, aware = (
        [
            eight_in_all_phases(simulate(aware=aware, max_batch=max_batch), seed, within_s)
            for max_batch in (1, 2, 8)
            for seed in range(10)
        ]
        for aware in (False, True)
    )
    changes = [sum(each.phase_changes for each in runs) for runs in (naive, aware)]
    assert changes[1] <= changes[0] / 4, changes
    took = [
        sum(done.took for each in runs for done in each.done.values()) for runs in (naive, aware)
    ]
    assert took[1] < took[0]


def test_work_goes_on_where_no_weights_move() -> None:
    """Then the order is as if the price were not known."""
    free = [PhaseSwitch(a, b, 0.0) for a, b in permutations(Phase, 2)]
    runs = []
    for switches in ((), free):
        policy = Policy(cost_model(switches=switches), max_batch=2, max_queue=100)
        runs.append(eight_in_all_phases(Simulation(policy, linear(0.1, 0.05)), 1))
    assert [work for _, work, _ in runs[0].works] == [work for _, work, _ in runs[1].works]


def test_a_flood_in_one_phase_keeps_nobody_out_of_another() -> None:
    """A change is made once the work in a phase has paid for it."""
    simulation = simulate(aware=True)
    flood = Standing(owner="flood")
    for number in range(20):
        simulation.arrive(0.0, request(f"long {number}", steps=1000, standing=flood))
    simulation.arrive(1.0, request("short", steps=4, standing=Standing(owner="other")))
    simulation.run(until=120)
    assert simulation.done["short"].took < 60


def test_a_deadline_is_kept_at_the_price_of_a_change() -> None:
    simulation = simulate(aware=True)
    simulation.arrive(0.0, request("long", steps=400))
    simulation.arrive(2.0, request("urgent", steps=4, deadline_s=12.0))
    simulation.run()
    assert simulation.ended["urgent"] == "done"
