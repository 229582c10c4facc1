"""The policy's promises over whole loads, in simulated time on a device that takes T(n)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_simulation import SHAPES, Simulation, Time, cost_model, linear, prepared_of, request

from multimodal_gen.configs.sampling_params import Priority
from multimodal_gen.errors import DeadlineExceeded, QueueFull
from multimodal_gen.messages.plan import BatchKey, Phase, Work
from multimodal_gen.messages.request import Req
from multimodal_gen.scheduling.batch_planner import REACTION_S
from multimodal_gen.scheduling.cost_model import PROMPT, CostModel
from multimodal_gen.scheduling.policy import Policy

Arrival = tuple[float, int, int, Priority, float | None, str]
"""When, steps, side, priority, deadline, and what becomes of it."""


def simulate(
    time: Time, *, cost: CostModel | None = None, max_batch: int = 8, max_queue: int = 20_000
) -> Simulation:
    policy = Policy(cost or cost_model(), max_batch=max_batch, max_queue=max_queue)
    return Simulation(policy, time)


def warmed(time: Time, *sides: int) -> CostModel:
    """A cost model that has seen one to three rows of each size."""
    cost = cost_model()
    for side in sides:
        for n in (1, 2, 3):
            for _ in range(3):
                key = prepared_of(request("a", side=side)).batch_keys[0].key
                cost.observe(Phase.DENOISE, key, n, time(n) * (side / 64) ** 2)
    cost.observe(Phase.ENCODE, PROMPT, 1, 0.005)
    for side in sides:
        cost.observe(Phase.DECODE, BatchKey(side * side // 256), 1, 0.01)
    return cost


# -- throughput


def pictures_per_second_against_one_call(time: Time, steps: int) -> float:
    """Of 8 clients that each ask again when they have their picture, once things have settled."""
    simulation = simulate(time)
    names = iter(range(10**6))

    def again(_: str) -> Iterable[Req]:
        return [request(str(next(names)), steps=steps)]

    simulation.on_done = again
    rng = random.Random(steps)
    for _ in range(8):
        simulation.arrive(rng.uniform(0, steps * time(8)), request(str(next(names)), steps=steps))
    simulation.run(until=20 * steps * time(8))
    begin, done = simulation.now, len(simulation.done)
    simulation.run(until=begin + 40 * steps * time(8))
    rate = (len(simulation.done) - done) / (simulation.now - begin)
    one_call = 8 * (simulation.encode_s + simulation.decode_s) + steps * time(8)
    return rate * one_call / 8


@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize("fixed_to_row", [0.1, 0.3, 1.0, 3.0, 10.0])
def test_eight_clients_get_nine_tenths_of_one_call_of_eight(
    fixed_to_row: float, steps: int
) -> None:
    time = linear(0.01 * fixed_to_row, 0.01)
    assert pictures_per_second_against_one_call(time, steps) >= 0.9


# -- short behind long


@pytest.mark.parametrize("long_side", [64, 128])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_short_one_behind_a_long_one_takes_at_most_half_as_long_again_and_one_long_step(
    shape: str, long_side: int
) -> None:
    time, rng = SHAPES[shape], random.Random(1)
    long_step = time(1) * (long_side / 64) ** 2
    for _ in range(20):
        steps = rng.choice([2, 4, 10, 20])
        long_steps = rng.choice([2 * steps + 1, 3 * steps + 1, 100])
        alone = simulate(time, cost=warmed(time, 64))
        alone.arrive(0, request("short", steps=steps))
        alone.run()
        both = simulate(time, cost=warmed(time, 64, long_side))
        both.arrive(0, request("long", steps=long_steps, side=long_side))
        both.arrive(rng.uniform(0, long_steps * long_step), request("short", steps=steps))
        both.run()
        allowed = 1.5 * alone.done["short"].took + max(long_step, REACTION_S)
        assert both.done["short"].took <= allowed


# -- nobody starves


def under_a_stream(victim: Req, stream: Callable[[str], Req]) -> Simulation:
    """The victim arrives first; then more than the device can do of the others, for ten minutes."""
    simulation = simulate(linear(1e-4, 0.02), max_queue=10)
    simulation.arrive(0, victim)
    simulation.run(until=0.001)
    for i in range(6000):
        try:
            simulation.arrive(i * 0.1, stream(str(i)))
            simulation.run(until=i * 0.1)
        except QueueFull:
            continue
    return simulation


def test_a_long_request_ends_under_a_stream_of_short_ones() -> None:
    simulation = under_a_stream(request("victim", steps=100), lambda id: request(id, steps=5))
    assert simulation.done["victim"].took < 120


def test_a_low_priority_request_ends_under_a_stream_of_high_priority_ones() -> None:
    simulation = under_a_stream(
        request("victim", steps=100, priority="low"),
        lambda id: request(id, steps=5, priority="high"),
    )
    assert simulation.done["victim"].took < 120


# -- invariants


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 5),
            st.integers(1, 12),
            st.sampled_from([64, 96]),
            st.sampled_from(["low", "normal", "high"]),
            st.sampled_from([None, 2.0, 60.0]),
            st.sampled_from(["", "cancel", "poison"]),
        ),
        min_size=1,
        max_size=24,
    ),
    st.integers(1, 8),
    st.integers(1, 2),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_every_request_ends_once_and_no_phase_is_overrun(
    arrivals: Sequence[Arrival],
    max_batch: int,
    rows: int,
    chunks: int,
    rng: random.Random,
) -> None:
    Load(arrivals, max_batch, rows, chunks, rng).run()


class Load:
    """Arrivals, cancellations, poison, lost memory and work cut short, acknowledged in order."""

    def __init__(
        self,
        arrivals: Sequence[Arrival],
        max_batch: int,
        rows: int,
        chunks: int,
        rng: random.Random,
    ) -> None:
        self.policy = Policy(cost_model(), max_batch=max_batch, max_queue=100)
        self.max_batch, self.rows, self.chunks, self.rng = max_batch, rows, chunks, rng
        self.arrivals = [
            (at, fate, request(str(i), steps=steps, side=side, priority=priority, deadline_s=left))
            for i, (at, steps, side, priority, left, fate) in enumerate(sorted(arrivals, key=str))
        ]
        self.arrivals.sort(key=lambda arrival: arrival[0])
        self.reqs = {req.id: req for _, _, req in self.arrivals}
        self.fates = {req.id: fate for _, fate, req in self.arrivals}
        self.done: dict[str, dict[Phase, int]] = {}
        self.ended: list[str] = []
        self.flying: list[Work] = []
        self.skipping = False
        self.now = 0.0

    def run(self) -> None:
        alive = 0
        while self.arrivals or self.flying or self.policy.running or self.policy.waiting:
            self.admit()
            self.decide()
            if self.flying:
                self.acknowledge(self.flying.pop(0))
            elif self.policy.wake_at is None:
                self.now = self.arrivals[0][0] if self.arrivals else self.now + 1
            alive += 1
            assert alive < 20_000, "no end"
        assert sorted(self.ended) == sorted(self.reqs)

    def admit(self) -> None:
        while self.arrivals and self.arrivals[0][0] <= self.now:
            _, _, req = self.arrivals.pop(0)
            self.done[req.id] = dict.fromkeys(Phase, 0)
            try:
                assert self.policy.submit(req, self.now)
            except DeadlineExceeded:
                self.ended.append(req.id)
        self.ended += self.policy.expired(self.now)

    def decide(self) -> None:
        while (work := self.policy.next(self.now)) is not None:
            assert len(self.flying) < 2
            assert 1 <= len(work.ids) == len(set(work.ids)) <= self.max_batch
            assert work.k >= 1
            self.flying.append(work)

    def acknowledge(self, work: Work) -> None:
        unit = 0.01 * len(work.ids)
        if self.skipping:
            self.complete(work, 0, 0.0)
        elif work.phase is Phase.DENOISE and self.rng.random() < 0.05 and len(work.ids) > 1:
            self.fail(work, out_of_memory=True)
        elif any(self.fates[id] == "poison" for id in work.ids) and work.phase is Phase.DENOISE:
            self.fail(work, out_of_memory=False)
        else:
            self.complete(work, work.k, unit * work.k)
        self.skipping = self.skipping and bool(self.flying)

    def complete(self, work: Work, advanced: int, seconds: float) -> None:
        self.now += seconds
        for id in work.ids:
            self.count(id, work.phase, advanced)
        prepared = {}
        if work.phase is Phase.ENCODE and advanced:
            for id in work.ids:
                prepared[id] = prepared_of(self.reqs[id], rows=self.rows, chunks=self.chunks)
        self.ended += self.policy.completed(
            work, advanced=advanced, seconds=seconds, prepared=prepared, now=self.now
        )
        for id in work.ids:
            if self.fates[id] == "cancel" and self.policy.remove(id):
                self.ended.append(id)

    def fail(self, work: Work, *, out_of_memory: bool) -> None:
        self.now += 0.01
        advanced = self.rng.randrange(work.k)
        for id in work.ids:
            self.count(id, work.phase, advanced)
        ended = self.policy.failed(
            work, advanced=advanced, out_of_memory=out_of_memory, now=self.now
        )
        assert all(self.fates[id] == "poison" for id in ended)
        self.ended += ended
        self.skipping = bool(self.flying)

    def count(self, id: str, phase: Phase, units: int) -> None:
        """What the engine sees: phases in order, none longer than it is."""
        if not units:
            return
        done, steps = self.done[id], self.reqs[id].params.num_inference_steps or 0
        before = {Phase.ENCODE: True, Phase.DENOISE: done[Phase.ENCODE] == 1}
        assert before.get(phase, done[Phase.DENOISE] == steps)
        done[phase] += units
        most = {Phase.ENCODE: 1, Phase.DENOISE: steps, Phase.DECODE: self.chunks}
        assert done[phase] <= most[phase]


def test_what_is_cancelled_in_flight_harms_nobody() -> None:
    arrivals: list[Arrival] = [
        (0.0, 8, 64, "normal", None, fate) for fate in ("", "cancel", "", "cancel")
    ]
    Load(arrivals, 8, 1, 1, random.Random(0)).run()


def test_plans_of_several_units_last_under_50_ms_once_their_cost_is_known() -> None:
    time = linear(0.001, 0.001)
    simulation = simulate(time, cost=warmed(time, 64))
    for i in range(30):
        simulation.arrive(i * 0.01, request(str(i), steps=30))
    simulation.run()
    several = [(at, seconds) for at, work, seconds in simulation.works if work.k > 1]
    assert several
    assert all(seconds <= REACTION_S for _, seconds in several)


def test_ten_thousand_requests_are_scheduled_in_seconds() -> None:
    simulation = simulate(linear(0.01, 0.01))
    rng, most_begun = random.Random(0), 0
    for i in range(10_000):
        steps, side = rng.choice([1, 2, 4, 8]), rng.choice([64, 96, 128])
        simulation.arrive(0, request(str(i), steps=steps, side=side))
    for until in range(0, 2000, 20):
        simulation.run(until=until)
        most_begun = max(most_begun, simulation.policy.running)
    simulation.run()
    assert len(simulation.done) == 10_000
    assert most_begun <= 8 * 8, "what has begun holds memory"
