"""The policy, decision by decision."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from policy_simulation import cost_model, prepared_of, request

from multimodal_gen.configs.second_pass import UpscaleChoice
from multimodal_gen.errors import DeadlineExceeded, QueueFull
from multimodal_gen.messages.plan import (
    BatchKey,
    EnlargingWork,
    EvaluationRun,
    Phase,
    Prepared,
    SecondPass,
    Work,
)
from multimodal_gen.messages.request import Req, preview_stride
from multimodal_gen.scheduling.policy import Policy

ENCODE_S, STEP_S, DECODE_S = 0.02, 0.1, 0.02
SECONDS = {Phase.ENCODE: ENCODE_S, Phase.DENOISE: STEP_S, Phase.DECODE: DECODE_S}


class Driver:
    """Acknowledges what the policy decides, one work at a time."""

    def __init__(self, *, max_batch: int = 8, max_queue: int = 100) -> None:
        self.cost = cost_model()
        self.policy = Policy(self.cost, max_batch=max_batch, max_queue=max_queue)
        self.reqs: dict[str, Req] = {}
        self.now = 0.0
        self.rows = 1

    def submit(self, *reqs: Req) -> None:
        for req in reqs:
            self.reqs[req.id] = req
            self.policy.submit(req, self.now)

    def next(self) -> Work:
        work = self.policy.next(self.now)
        assert work is not None
        return work

    def acknowledge(self, work: Work, advanced: int | None = None) -> list[str]:
        advanced = work.k if advanced is None else advanced
        seconds = SECONDS[work.phase] * advanced
        if work.phase is not Phase.DENOISE:
            seconds *= len(work.ids)
        self.now += seconds
        prepared: dict[str, Prepared] = {}
        if work.phase is Phase.ENCODE and advanced:
            prepared = {id: prepared_of(self.reqs[id], rows=self.rows) for id in work.ids}
        return self.policy.completed(
            work, advanced=advanced, seconds=seconds, prepared=prepared, now=self.now
        )

    def until(self, phase: Phase, *ids: str) -> Work:
        """The first decision for this phase that has these requests."""
        for _ in range(1000):
            work = self.next()
            if work.phase is phase and set(ids) <= set(work.ids):
                return work
            self.acknowledge(work)
        raise AssertionError(f"never {phase} of {ids}")

    def finish(self) -> list[str]:
        order: list[str] = []
        while (work := self.policy.next(self.now)) is not None:
            order += self.acknowledge(work)
        return order


def warm() -> Driver:
    """A driver whose cost model has seen each phase."""
    driver = Driver()
    driver.submit(request("first", steps=4))
    driver.finish()
    return driver


# -- the life of a request


def test_a_request_is_encoded_denoised_and_decoded() -> None:
    driver = warm()
    driver.submit(request("a", steps=2))
    phases = []
    while (work := driver.policy.next(driver.now)) is not None:
        assert work.ids == ("a",)
        phases += [work.phase] * work.k
        finished = driver.acknowledge(work)
    assert phases == [Phase.ENCODE, Phase.DENOISE, Phase.DENOISE, Phase.DECODE]
    assert finished == ["a"]
    assert (driver.policy.running, driver.policy.waiting) == (0, 0)


def test_nothing_to_do_is_none() -> None:
    policy = Driver().policy
    assert policy.next(0.0) is None
    assert policy.wake_at is None


def test_a_repeated_id_is_the_same_request() -> None:
    policy = Driver().policy
    assert policy.submit(request("a"), 0.0)
    assert not policy.submit(request("a", steps=50), 1.0)
    assert policy.waiting == 1


def test_a_full_queue_says_when_to_try_again() -> None:
    driver = Driver(max_queue=2)
    driver.submit(request("a"), request("b"))
    with pytest.raises(QueueFull) as caught:
        driver.submit(request("c"))
    assert caught.value.retry_after_s is not None
    assert 0 < caught.value.retry_after_s <= 3600
    assert driver.policy.remove("a")
    driver.submit(request("c"))


def test_a_cancelled_request_is_not_planned_again() -> None:
    driver = warm()
    driver.submit(request("a", steps=9), request("b", steps=9))
    work = driver.until(Phase.DENOISE, "a", "b")
    assert driver.policy.remove("a")
    assert not driver.policy.remove("a")
    driver.acknowledge(work)
    assert driver.next().ids == ("b",)


def test_work_in_flight_is_not_credited_to_a_new_request_of_the_same_id() -> None:
    driver = warm()
    driver.submit(request("a"))
    work = driver.next()
    driver.policy.remove("a")
    driver.submit(request("a"))
    driver.acknowledge(work)
    assert driver.next() == Work(phase=Phase.ENCODE, ids=("a",))


# -- batches


def test_a_newcomer_joins_a_running_batch_at_the_next_evaluation() -> None:
    driver = warm()
    driver.submit(request("a", steps=20))
    driver.acknowledge(driver.until(Phase.DENOISE, "a"))
    driver.submit(request("b", steps=18))
    assert driver.next() == Work(phase=Phase.ENCODE, ids=("b",))
    driver.policy.completed(
        Work(phase=Phase.ENCODE, ids=("b",)),
        advanced=1,
        seconds=ENCODE_S,
        prepared={"b": prepared_of(driver.reqs["b"])},
        now=driver.now,
    )
    assert set(driver.next().ids) == {"a", "b"}


def test_a_batch_has_at_most_max_batch_requests() -> None:
    driver = Driver(max_batch=3)
    driver.submit(*(request(str(i)) for i in range(7)))
    sizes = []
    while (work := driver.policy.next(driver.now)) is not None:
        sizes.append(len(work.ids))
        driver.acknowledge(work)
    assert max(sizes) == 3


def test_requests_with_different_keys_do_not_share_an_evaluation() -> None:
    driver = warm()
    driver.submit(request("a", side=64), request("b", side=128))
    while (work := driver.policy.next(driver.now)) is not None:
        assert work.phase is not Phase.DENOISE or len(work.ids) == 1
        driver.acknowledge(work)


def test_a_plan_does_not_reach_past_a_change_of_key() -> None:
    driver = Driver()
    for _ in range(3):
        for key in (BatchKey(8), BatchKey(9)):
            driver.cost.observe(Phase.DENOISE, key, 1, 1e-4)
    driver.submit(request("a", steps=10))
    runs = (EvaluationRun(BatchKey(8), 3, 1), EvaluationRun(BatchKey(9), 7, 1))
    prepared = Prepared(batch_keys=runs, decode_chunks=1)
    driver.policy.completed(
        driver.next(), advanced=1, seconds=0.01, prepared={"a": prepared}, now=0.0
    )
    first, second = driver.next(), driver.next()
    assert (first.k, second.k) == (3, 7)


def test_a_second_pass_is_counted_from_the_start_and_begins_when_the_first_is_decoded() -> None:
    driver = Driver()
    plain = request("a", steps=3)
    params = replace(plain.params, upscale=UpscaleChoice(2, 0.5, 4))
    driver.submit(msgspec.structs.replace(plain, params=params))
    assert driver.policy.progress("a", 0.0).total == 5
    runs = (EvaluationRun(BatchKey(16), 3, 1), EvaluationRun(BatchKey(64), 2, 1))
    prepared = Prepared(batch_keys=runs, decode_chunks=2, second=SecondPass(2, 3), steps=5)
    driver.policy.completed(
        driver.next(), advanced=1, seconds=0.01, prepared={"a": prepared}, now=0.0
    )
    done, left = [], []
    while driver.policy.running:
        work = driver.next()
        done += [work.phase] * work.k
        if work.phase is Phase.DECODE and done.count(Phase.DECODE) == 2:
            assert driver.policy.next(driver.now) is None
        driver.acknowledge(work)
        if driver.policy.running:
            progress = driver.policy.progress("a", driver.now)
            assert progress.step == done.count(Phase.DENOISE)
            left.append(progress.eta_s)
    first = [Phase.DENOISE] * 3 + [Phase.DECODE] * 2
    assert done == [*first, *[Phase.DENOISE] * 2, *[Phase.DECODE] * 3]
    assert left == sorted(left, reverse=True)


def test_a_short_request_goes_between_two_tiles_of_a_model_that_enlarges() -> None:
    driver = Driver()
    params = replace(request("a", steps=3).params, upscale=UpscaleChoice(4, model="4x-tiny"))
    driver.submit(msgspec.structs.replace(request("a", steps=3), params=params))
    tile = BatchKey(256, "upscaler 4x-tiny")
    prepared = Prepared(
        batch_keys=(EvaluationRun(BatchKey(16), 3, 1),),
        decode_chunks=1,
        enlarging=EnlargingWork(20, tile),
        steps=3,
    )
    driver.policy.completed(
        driver.next(), advanced=1, seconds=0.01, prepared={"a": prepared}, now=0.0
    )
    done: list[Phase] = []
    while done.count(Phase.DECODE) < 4:
        work = driver.next()
        done += [work.phase] * work.k
        driver.acknowledge(work)
    assert done[:4] == [*[Phase.DENOISE] * 3, Phase.DECODE]
    driver.submit(request("b", steps=2))
    later: list[str] = []
    while driver.policy.running or driver.policy.waiting:
        work = driver.next()
        later += [*work.ids] * work.k
        driver.acknowledge(work)
    assert later[:4] == ["b"] * 4
    assert done.count(Phase.DECODE) + later.count("a") == 1 + 20


def test_a_plan_does_not_reach_past_a_preview() -> None:
    driver = Driver()
    key = prepared_of(request("a")).batch_keys[0].key
    for _ in range(3):
        driver.cost.observe(Phase.DENOISE, key, 1, 1e-4)
    shown = msgspec.structs.replace(request("a", steps=25), previews=True)
    driver.submit(shown)
    driver.acknowledge(driver.next())
    sizes = []
    for _ in range(9):
        work = driver.next()
        sizes.append(work.k)
        driver.policy.completed(work, advanced=work.k, seconds=1e-4, prepared={}, now=driver.now)
    assert sizes == [preview_stride(25)] * 8 + [1]


def test_a_plan_of_several_evaluations_lasts_under_50_ms() -> None:
    driver = Driver()
    key = prepared_of(request("a")).batch_keys[0].key
    for _ in range(3):
        driver.cost.observe(Phase.DENOISE, key, 1, 0.004)
    driver.submit(request("a", steps=100))
    work = driver.until(Phase.DENOISE, "a")
    assert 1 < work.k <= 0.05 / 0.004


def test_rows_that_do_not_fit_are_left_out() -> None:
    driver = warm()
    driver.rows = 2
    key = prepared_of(request("a")).batch_keys[0].key
    driver.cost.out_of_memory(key, 8)
    driver.submit(*(request(str(i)) for i in range(4)))
    while (work := driver.policy.next(driver.now)) is not None:
        assert work.phase is not Phase.DENOISE or len(work.ids) <= 2
        driver.acknowledge(work)


# -- order


def test_a_short_request_overtakes_a_long_one() -> None:
    driver = warm()
    driver.submit(request("long", steps=200, side=128))
    driver.acknowledge(driver.until(Phase.DENOISE, "long"))
    driver.submit(request("short"))
    assert driver.finish() == ["short", "long"]


def test_a_high_priority_request_goes_first_even_when_it_is_longer() -> None:
    driver = warm()
    driver.submit(request("normal", steps=10, side=128))
    driver.acknowledge(driver.until(Phase.DENOISE, "normal"))
    driver.submit(request("high", steps=40, priority="high"), request("low", priority="low"))
    assert driver.finish() == ["high", "normal", "low"]


def test_what_is_done_is_decoded_before_others_go_on() -> None:
    driver = warm()
    driver.submit(request("a", steps=2), request("b", steps=3))
    driver.acknowledge(driver.until(Phase.DENOISE, "a", "b"))
    driver.acknowledge(driver.until(Phase.DENOISE, "a", "b"))
    assert driver.next() == Work(phase=Phase.DECODE, ids=("a",))


# -- deadlines


def test_a_deadline_out_of_reach_is_refused_at_once() -> None:
    driver = warm()
    with pytest.raises(DeadlineExceeded, match=r"deadline_s=0\.5"):
        driver.submit(request("a", steps=20, deadline_s=0.5))
    driver.submit(request("b", steps=20, deadline_s=5))
    assert driver.policy.waiting == 1


def test_an_expired_request_leaves_once() -> None:
    driver = warm()
    driver.submit(request("a", deadline_s=60))
    late = driver.now + 60
    assert driver.policy.expired(late - 1) == []
    assert driver.policy.expired(late) == ["a"]
    assert driver.policy.expired(late) == []
    assert driver.policy.next(late) is None


def test_little_slack_lets_a_request_go_first() -> None:
    driver = warm()
    driver.submit(request("urgent", steps=20, side=128, deadline_s=8), request("short", steps=15))
    assert driver.finish()[0] == "urgent"


# -- one plan ahead


def test_a_plan_is_decided_ahead_as_if_the_one_before_were_done() -> None:
    driver = warm()
    driver.submit(request("a", steps=2))
    driver.acknowledge(driver.next())
    first = driver.next()
    driver.now += STEP_S
    second = driver.next()
    assert [first.k, second.k] == [1, 1]
    assert driver.policy.next(driver.now) is None
    driver.acknowledge(first)
    driver.now += STEP_S
    assert driver.next() == Work(phase=Phase.DECODE, ids=("a",))


def test_long_work_is_followed_up_only_shortly_before_its_end() -> None:
    driver = warm()
    driver.submit(request("a", steps=9))
    driver.acknowledge(driver.next())
    driver.next()
    assert driver.policy.next(driver.now) is None
    wake_at = driver.policy.wake_at
    assert wake_at is not None
    assert driver.now + STEP_S / 2 < wake_at < driver.now + STEP_S
    assert driver.policy.next(wake_at) is not None


def test_nothing_is_denoised_before_it_is_known_to_be_encoded() -> None:
    driver = warm()
    driver.submit(request("a"))
    work = driver.next()
    assert driver.policy.next(driver.now + 10) is None
    driver.acknowledge(work)
    assert driver.next().phase is Phase.DENOISE


def test_units_that_were_not_done_are_planned_again() -> None:
    driver = warm()
    driver.submit(request("a", steps=2))
    driver.acknowledge(driver.next())
    first = driver.next()
    driver.now += STEP_S
    ahead = driver.next()
    driver.acknowledge(first, advanced=0)
    assert driver.policy.next(driver.now) is None, "what was decided on top comes back first"
    driver.acknowledge(ahead, advanced=0)
    assert driver.policy.progress("a", driver.now).step == 0
    phases = []
    while (work := driver.policy.next(driver.now)) is not None:
        phases += [work.phase] * work.k
        driver.acknowledge(work)
    assert phases == [Phase.DENOISE, Phase.DENOISE, Phase.DECODE]


# -- failures


def fail(driver: Driver, work: Work, *, out_of_memory: bool = False) -> list[str]:
    return driver.policy.failed(work, advanced=0, out_of_memory=out_of_memory, now=driver.now)


def test_out_of_memory_halves_the_batch_and_splits_it() -> None:
    driver = warm()
    ids = [str(i) for i in range(8)]
    driver.submit(*(request(id) for id in ids))
    work = driver.until(Phase.DENOISE, *ids)
    assert fail(driver, work, out_of_memory=True) == []
    assert len(driver.until(Phase.DENOISE).ids) == 4


def test_a_request_that_alone_runs_out_of_memory_ends() -> None:
    driver = warm()
    driver.submit(request("a"))
    assert fail(driver, driver.until(Phase.DENOISE, "a"), out_of_memory=True) == ["a"]
    assert driver.policy.next(driver.now) is None


def test_a_poisonous_request_ends_and_its_neighbours_go_on() -> None:
    driver = warm()
    ids = [str(i) for i in range(5)]
    driver.submit(*(request(id) for id in ids))
    failed: list[str] = []
    finished: list[str] = []
    while (work := driver.policy.next(driver.now)) is not None:
        if work.phase is Phase.DENOISE and "3" in work.ids:
            failed += fail(driver, work)
        else:
            finished += driver.acknowledge(work)
    assert failed == ["3"]
    assert sorted(finished) == ["0", "1", "2", "4"]


# -- what users are told


def test_progress_counts_steps_and_the_eta_falls_to_the_end() -> None:
    driver = warm()
    driver.submit(request("a", steps=5))
    etas, steps = [], []
    while (work := driver.policy.next(driver.now)) is not None:
        progress = driver.policy.progress("a", driver.now)
        etas.append(progress.eta_s)
        steps.append((progress.step, progress.total))
        driver.acknowledge(work)
    assert etas == sorted(etas, reverse=True)
    assert steps[0] == (0, 5)
    assert steps[-1] == (5, 5)


def test_solvers_with_more_evaluations_than_steps_are_told_in_steps() -> None:
    driver = warm()
    driver.submit(request("a", steps=20))
    key = prepared_of(request("a")).batch_keys[0].key
    heun = Prepared(batch_keys=(EvaluationRun(key, 39, 1),), decode_chunks=1)
    driver.policy.completed(
        driver.next(), advanced=1, seconds=0.01, prepared={"a": heun}, now=driver.now
    )
    seen = set()
    for _ in range(39):
        seen.add(driver.policy.progress("a", driver.now).step)
        driver.acknowledge(driver.next())
    assert seen == set(range(20))
    assert driver.policy.progress("a", driver.now).step == 20


def test_those_who_wait_are_told_their_place() -> None:
    driver = Driver(max_batch=1)
    driver.submit(*(request(str(i)) for i in range(4)))
    driver.next()
    places = [driver.policy.progress(str(i), 0.0).queue_position for i in range(4)]
    assert places == [0, 1, 2, 3]
    etas = [driver.policy.progress(str(i), 0.0).eta_s for i in range(4)]
    assert etas == sorted(etas)


def test_progress_tells_how_many_share_the_work_and_0_of_one_that_is_interrupted() -> None:
    driver = warm()
    driver.submit(request("a", priority="low"), request("b", priority="low"))
    driver.until(Phase.DENOISE, "a", "b")
    assert [driver.policy.progress(each, driver.now).batch_size for each in "ab"] == [2, 2]
    driver = warm()
    driver.submit(request("a", side=128, priority="low"))
    driver.acknowledge(driver.until(Phase.DENOISE, "a"))
    driver.submit(request("b", priority="high"))
    assert driver.until(Phase.DENOISE, "b").ids == ("b",)
    interrupted = driver.policy.progress("a", driver.now)
    assert (interrupted.batch_size, interrupted.phase) == (0, "denoise")
