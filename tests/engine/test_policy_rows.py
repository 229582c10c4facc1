"""The policy with requests whose evaluations take different numbers of rows, some of them none."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from policy_simulation import cost_model, request

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.configs.step_cache import QUALITIES
from multimodal_gen.messages.plan import BatchKey, EvaluationRun, Phase, Prepared, Work
from multimodal_gen.messages.request import Req
from multimodal_gen.scheduling.cost_model import STEP_S, CostModel
from multimodal_gen.scheduling.geometry import work_kind
from multimodal_gen.scheduling.policy import Policy

KEY, OTHER = BatchKey(16, "picture"), BatchKey(16, "another")
FIXED_S, ROW_S = 0.1, 0.01


def learned() -> CostModel:
    """A cost model that has seen batches of one to eight rows."""
    cost = cost_model()
    for _ in range(5):
        for key in (KEY, OTHER):
            for rows in range(1, 9):
                cost.observe(Phase.DENOISE, key, rows, FIXED_S + rows * ROW_S)
    return cost


@dataclass
class Engine:
    """Does what the policy decides, in the time that is predicted."""

    runs: dict[str, tuple[EvaluationRun, ...]]
    cost: CostModel = field(default_factory=learned)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.policy = Policy(self.cost, max_batch=8, max_queue=100)
        self.submit(*self.runs)

    def submit(self, *names: str) -> None:
        for name in names:
            steps = sum(run.count for run in self.runs[name])
            self.policy.submit(request(name, steps=steps), self.now)

    def next(self) -> Work | None:
        return self.policy.next(self.now)

    def do(self, work: Work, rows: int = 1) -> None:
        prepared, seconds = {}, 0.01
        if work.phase is Phase.ENCODE:
            prepared = {
                name: Prepared(batch_keys=self.runs[name], decode_chunks=1) for name in work.ids
            }
        elif work.phase is Phase.DENOISE:
            seconds = self.cost.seconds(Phase.DENOISE, KEY, rows) * work.k
        self.now += seconds
        self.policy.completed(
            work, advanced=work.k, seconds=seconds, prepared=prepared, now=self.now
        )

    def until_evaluation(self) -> Work:
        while (work := self.next()) is not None:
            if work.phase is Phase.DENOISE:
                return work
            self.do(work)
        raise AssertionError("nothing is left to evaluate")

    def evaluations(self) -> list[tuple[set[str], int]]:
        """All works that evaluate, until everything is done."""
        seen = []
        while (work := self.next()) is not None:
            if work.phase is Phase.DENOISE:
                seen.append((set(work.ids), work.k))
            self.do(work)
        return seen


def together(**made: tuple[EvaluationRun, ...]) -> Engine:
    """Requests that are encoded together, as the policy knows their like."""
    engine = Engine({"first": runs(2)})
    engine.evaluations()
    engine.runs |= made
    engine.submit(*made)
    return engine


def runs(*rows: int, key: BatchKey = KEY) -> tuple[EvaluationRun, ...]:
    """One evaluation after the other, with these rows."""
    return tuple(EvaluationRun(key, 1, each) for each in rows)


def test_a_plan_does_not_reach_past_a_change_of_rows() -> None:
    cost = cost_model()
    for rows in (1, 2):
        cost.observe(Phase.DENOISE, KEY, rows, 1e-4)
    made = (EvaluationRun(KEY, 3, 1), EvaluationRun(KEY, 5, 2), EvaluationRun(KEY, 2, 1))
    assert Engine({"a": made}, cost).evaluations() == [({"a"}, 3), ({"a"}, 5), ({"a"}, 2)]


def test_requests_with_different_rows_share_an_evaluation() -> None:
    engine = together(a=runs(2, 2, 1), b=runs(1, 2, 2))
    assert engine.evaluations() == [({"a", "b"}, 1)] * 3


def test_evaluations_without_rows_go_first_so_that_their_requests_share_the_next_one() -> None:
    engine = together(a=runs(2, 2, 2), b=runs(2, 0, 2, 2))
    assert engine.evaluations() == [({"a", "b"}, 1), ({"b"}, 1), ({"a", "b"}, 1), ({"a", "b"}, 1)]


def test_evaluations_without_rows_go_first_those_of_one_key_at_a_time() -> None:
    made = {name: runs(0, 1, key=key) for name, key in (("a", KEY), ("b", OTHER), ("c", KEY))}
    found = together(**made).evaluations()
    assert found == [({"a", "c"}, 1), ({"b"}, 1), ({"a", "c"}, 1), ({"b"}, 1)]


def test_many_evaluations_without_rows_are_one_plan() -> None:
    made = (EvaluationRun(KEY, 1, 2), EvaluationRun(KEY, 9, 0), EvaluationRun(KEY, 1, 2))
    assert Engine({"a": made}).evaluations() == [({"a"}, 1), ({"a"}, 9), ({"a"}, 1)]


def test_the_time_left_counts_the_rows_of_each_evaluation() -> None:
    rows = (2, 1, 0, 2)
    engine, etas = Engine({"a": runs(*rows)}), []
    for each in rows:
        work = engine.until_evaluation()
        etas.append(engine.policy.progress("a", engine.now).eta_s)
        engine.do(work, each)
    one, two = (engine.cost.seconds(Phase.DENOISE, KEY, each) for each in (1, 2))
    passed = [before - after for before, after in pairwise(etas)]
    assert passed == pytest.approx([one, STEP_S, two], rel=0.1)


def test_what_waits_is_predicted_by_the_rows_of_its_like() -> None:
    etas = []
    for made in (runs(2, 2, 2, 2), runs(2, 1, 1, 2)):
        engine = Engine({"a": made, "b": made})
        engine.do(engine.until_evaluation(), 2)
        etas.append(engine.policy.progress("b", engine.now).eta_s)
    assert etas[1] < etas[0]


def test_running_out_of_memory_without_rows_limits_no_evaluation() -> None:
    engine = Engine({"a": runs(1, 0, 4)})
    engine.do(engine.until_evaluation())
    work = engine.until_evaluation()
    engine.policy.failed(work, advanced=0, out_of_memory=True, now=engine.now)
    assert engine.cost.fits(KEY, 8)


def test_memory_is_asked_for_the_rows_of_the_evaluation() -> None:
    for known, expected in ((True, (0, 0)), (False, (1, 3))):
        engine = Engine({"a": runs(1, 3)}, learned() if known else cost_model())
        for rows in expected:
            work = engine.until_evaluation()
            assert work.untried_bytes == (cost_model().untried_bytes(KEY, rows) if rows else 0)
            engine.do(work)


def test_what_exact_requests_take_says_nothing_about_faster_ones() -> None:
    kinds = {
        work_kind(Req(id="a", params=SamplingParams(prompt="a", seed=1, quality=quality)))
        for quality in QUALITIES
    }
    assert len(kinds) == len(QUALITIES)
