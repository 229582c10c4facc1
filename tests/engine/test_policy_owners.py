"""Owners share the device, whatever one of them asks for; in simulated time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count

import pytest
from policy_simulation import SHAPES, Simulation, Time, cost_model, linear, request

from multimodal_gen.configs.sampling_params import Priority
from multimodal_gen.errors import DeadlineExceeded
from multimodal_gen.messages.plan import BatchKey, Phase
from multimodal_gen.messages.request import Req, Standing
from multimodal_gen.scheduling.batch_planner import REACTION_S
from multimodal_gen.scheduling.job import SchedulerJob
from multimodal_gen.scheduling.policy import Policy
from multimodal_gen.scheduling.queue.backlog import REVALUED, Backlog

ANNE, BOB = Standing("anne"), Standing("bob")
IN_FLIGHT = 56
"""Requests of one owner that the front sends to an engine with batches of 16."""


def simulate(time: Time) -> Simulation:
    return Simulation(Policy(cost_model(), max_batch=16, max_queue=256), time)


class Flood:
    """An owner that always has as many requests in the engine as there may be."""

    def __init__(
        self,
        simulation: Simulation,
        *,
        owner: Standing = ANNE,
        side: int = 64,
        steps: int = 20,
        priority: Priority = "high",
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._names: Iterator[int] = count()
        self._owner, self._side, self._steps, self._priority = owner, side, steps, priority
        self._others = simulation.on_done
        simulation.on_done = self._again
        for _ in range(in_flight):
            simulation.arrive(simulation.now, self._next())

    def _again(self, done: str) -> Iterable[Req]:
        if done.startswith(f"{self._owner.owner} "):
            yield self._next()
        yield from self._others(done)

    def _next(self) -> Req:
        return request(
            f"{self._owner.owner} {next(self._names)}",
            steps=self._steps,
            side=self._side,
            priority=self._priority,
            standing=self._owner,
        )


def run_until_done(simulation: Simulation, name: str) -> None:
    until = simulation.now
    while name not in simulation.done:
        until += 0.2
        simulation.run(until=until)


def longest_unit(simulation: Simulation) -> float:
    """The longest time in which nothing could interrupt."""
    return max(seconds / work.k for _, work, seconds in simulation.works)


@pytest.mark.parametrize("steps", [4, 30])
@pytest.mark.parametrize("side", [64, 128])
@pytest.mark.parametrize("shape", SHAPES)
def test_beside_a_flood_of_high_priority_another_key_takes_twice_as_long_and_an_evaluation(
    shape: str, side: int, steps: int
) -> None:
    alone = simulate(SHAPES[shape])
    for index in range(3):
        alone.arrive(100 * index, request(str(index), steps=steps, standing=BOB))
    alone.run()
    beside = simulate(SHAPES[shape])
    Flood(beside, side=side)
    beside.run(until=8)
    for index in range(3):
        name = f"bob {index}"
        beside.arrive(beside.now + 1.123, request(name, steps=steps, standing=BOB))
        run_until_done(beside, name)
    most = 2 * alone.done["2"].took + max(longest_unit(beside), REACTION_S)
    assert max(beside.done[f"bob {index}"].took for index in range(3)) <= most


def device_time(simulation: Simulation, seconds: float) -> Counter[str]:
    """Device time that each owner gets of so many seconds from now."""
    begin, got = simulation.now, Counter[str]()
    simulation.run(until=begin + seconds)
    for at, work, took in simulation.works:
        for name in work.ids if at > begin else ():
            got[name.partition(" ")[0]] += took / len(work.ids)  # type: ignore[assignment]
    return got


def test_slow_evaluations_are_shared_only_as_far_as_others_can_wait() -> None:
    simulation = simulate(linear(10.0, 2.5))
    Flood(simulation, steps=4, in_flight=16)
    simulation.run(until=2000.0)
    evaluations = [w for _, w, _ in simulation.works if w.phase is Phase.DENOISE]
    assert max(len(work.ids) for work in evaluations) == 8  # 30 s, where 16 would take 50
    simulation.arrive(simulation.now, request("bob", steps=2, standing=BOB))
    run_until_done(simulation, "bob")
    assert simulation.done["bob"].took <= 2 * 2 * 12.5 + 30.0 + 1.0


@pytest.mark.parametrize("weight", [1, 3])
def test_two_floods_share_the_device_by_weight_however_long_their_requests_are(
    weight: float,
) -> None:
    simulation = simulate(linear(0.01, 0.01))
    Flood(simulation, owner=Standing("anne", weight), side=128, steps=100)
    Flood(simulation, owner=BOB, steps=4, priority="low")
    simulation.run(until=5)
    got = device_time(simulation, 40)
    assert got["anne"] / got["bob"] == pytest.approx(weight, rel=0.1)


def test_an_owner_alone_has_the_whole_device() -> None:
    simulation = simulate(linear(0.01, 0.01))
    Flood(simulation, owner=ANNE)
    simulation.run(until=5)
    assert device_time(simulation, 20)["anne"] == pytest.approx(20, rel=0.05)


def test_the_right_to_priorities_puts_a_request_before_those_of_all_owners() -> None:
    simulation = simulate(linear(0.01, 0.01))
    Flood(simulation, owner=Standing("anne"), side=128)
    simulation.run(until=5)
    on_call = Standing("carol", priorities=True)
    for index in range(3):
        name = f"carol {index}"
        asked = request(name, priority="high", steps=10, standing=on_call)
        simulation.arrive(simulation.now + 1.01, asked)
        run_until_done(simulation, name)
        alone = 10 * 0.02 + simulation.encode_s + simulation.decode_s
        aged = 1.25 * alone
        assert simulation.done[name].took <= aged + 2 * longest_unit(simulation)


def test_others_end_under_a_flood_of_an_owner_with_the_right_to_priorities() -> None:
    simulation = simulate(linear(0.01, 0.01))
    Flood(simulation, owner=Standing("anne", priorities=True))
    simulation.run(until=10)
    simulation.arrive(simulation.now, request("bob", steps=20, priority="low", standing=BOB))
    simulation.run(until=60)
    assert "bob" in simulation.done


def test_a_low_one_ends_beside_later_high_ones_of_its_own_key_and_another_key() -> None:
    simulation = simulate(linear(0.01, 0.01))
    Flood(simulation, owner=ANNE)
    Flood(simulation, owner=BOB)
    simulation.run(until=10)
    low = request("bob low", steps=20, priority="low", standing=BOB)
    simulation.arrive(simulation.now, low)
    simulation.run(until=90)
    assert "bob low" in simulation.done


def test_a_deadline_counts_the_work_of_other_owners_only_while_they_take_turns() -> None:
    simulation = simulate(linear(0.01, 0.01))
    Flood(simulation, owner=ANNE)
    simulation.run(until=5)
    policy, now = simulation.policy, simulation.now
    alone = 20 * 0.02
    with pytest.raises(DeadlineExceeded):
        policy.submit(request("bob", steps=20, deadline_s=0.9 * alone, standing=BOB), now)
    assert policy.submit(request("bob", steps=20, deadline_s=3 * alone, standing=BOB), now)
    eta = policy.progress("bob", now).eta_s
    assert alone < eta < 3 * alone


def test_a_question_about_progress_predicts_few_anew_however_many_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cost, counted = cost_model(), [0]
    policy = Policy(cost, max_batch=16, max_queue=20_000)
    for index in range(10_000):
        policy.submit(request(str(index), steps=1 + index % 50), 0.0)
    share = Backlog._share

    def noted(self: Backlog, job: SchedulerJob) -> float:
        counted[0] += 1
        return share(self, job)

    monkeypatch.setattr(Backlog, "_share", noted)
    cost.observe(Phase.DENOISE, BatchKey(16, "picture"), 1, 5.0)
    for question in range(1, 11):
        place = policy.progress("9999", 0.0).queue_position
        assert place == 9_999
        assert counted[0] <= question * REVALUED


def test_a_batch_of_several_owners_is_charged_in_parts() -> None:
    simulation = simulate(SHAPES["free rows"])
    for owner in (ANNE, BOB):
        simulation.arrive(0, request(f"{owner.owner} 1", steps=20, standing=owner))
    simulation.run()
    together = [w for _, w, _ in simulation.works if w.phase is Phase.DENOISE and len(w.ids) == 2]
    assert len(together) >= 10
