"""Step caches: what is computed of a request, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from multimodal_gen.configs.step_cache import StepCache
from multimodal_gen.runtime.stages.prediction_cache import (
    PlannedEvaluation,
    PredictionCache,
    plan_evaluations,
)

Branches = tuple[str, ...]
BOTH = ("positive", "negative")
EVERY_THIRD = StepCache(computed=(0, 3, 6, 9), steps=12, slope=1)
ROW = torch.tensor([[1.0, -2.0, 3.0]])


def planned(
    rule: StepCache = EVERY_THIRD,
    evaluations: int = 12,
    first: int = 0,
    wanted: Callable[[int], Branches] = lambda i: BOTH,
    kind: Callable[[int], object] = lambda i: None,
) -> list[PlannedEvaluation]:
    return plan_evaluations(rule, evaluations, first, wanted, kind)


def computed(plan: Sequence[PlannedEvaluation]) -> list[int]:
    return [i for i, each in enumerate(plan) if each.computed]


def run(
    rule: StepCache,
    plan: Sequence[PlannedEvaluation],
    times: Sequence[float],
    prediction: Callable[[float, str], Tensor],
    *,
    twice: bool = False,
) -> tuple[list[Tensor], int]:
    """All predictions, and the most that were held."""
    cache, most, found = PredictionCache(rule, times, plan), 0, []
    for i, (time, each) in enumerate(zip(times, plan, strict=True)):
        rows = [prediction(time, branch) for branch in each.computed]
        given = torch.cat(rows) if rows else ROW[:0]
        for _ in range(2 if twice else 1):
            complete = cache.complete(i, given)
        found.append(complete)
        most = max(most, len(cache.predictions))
    assert not cache.predictions or not plan[-1].is_complete
    return found, most


def linear(time: float, branch: str) -> Tensor:
    return ROW * time if branch == "positive" else ROW * (5 - time)


TIMES = [12.0 - i for i in range(12)]


def test_predictions_that_change_evenly_are_extrapolated_exactly() -> None:
    found, _ = run(EVERY_THIRD, planned(), TIMES, linear)
    for time, each in zip(TIMES, found, strict=True):
        torch.testing.assert_close(each, torch.cat([linear(time, name) for name in BOTH]))


def test_a_rule_computes_its_evaluations_and_as_many_first_ones_as_its_polynomial_needs() -> None:
    assert computed(planned()) == [0, 1, 3, 6, 9]
    second_order = StepCache(computed=(0, 3, 6, 9), steps=12, order=2)
    assert computed(planned(second_order)) == [0, 1, 2, 3, 6, 9]


def test_a_request_that_starts_later_computes_its_first_evaluations() -> None:
    assert computed(planned(first=4))[4:] == [4, 5, 6, 9]


@pytest.mark.parametrize("change", [5, 7])
def test_nothing_is_extrapolated_across_a_change_of_expert_or_adapters(change: int) -> None:
    plan = planned(kind=lambda i: i >= change)
    assert {change, change + 1} <= {*computed(plan)}
    assert [i for i, each in enumerate(plan) if each.begins] == [0, change]

    def jumping(time: float, branch: str) -> Tensor:
        return linear(time, branch) + (100 if time <= TIMES[change] else 0)

    found, _ = run(EVERY_THIRD, plan, TIMES, jumping)
    for time, each in zip(TIMES, found, strict=True):
        torch.testing.assert_close(each, torch.cat([jumping(time, name) for name in BOTH]))


def test_a_change_of_the_guided_branches_begins_anew() -> None:
    plan = planned(wanted=lambda i: BOTH if 4 <= i < 8 else BOTH[:1])
    assert [each.wanted for each in plan[3:5]] == [BOTH[:1], BOTH]
    assert {0, 4, 8} == {i for i, each in enumerate(plan) if each.begins}
    found, _ = run(EVERY_THIRD, plan, TIMES, linear)
    for time, each, rows in zip(TIMES, plan, found, strict=True):
        torch.testing.assert_close(rows, torch.cat([linear(time, name) for name in each.wanted]))


def test_an_evaluation_that_combines_nothing_is_left_as_it_is() -> None:
    plan = planned(wanted=lambda i: () if i < 2 else BOTH)
    assert [i for i, each in enumerate(plan) if each.is_extrapolated] == [4, 5, 7, 8, 10, 11]
    found, _ = run(EVERY_THIRD, plan, TIMES, linear)
    assert [len(each) for each in found] == [0, 0] + [2] * 10


def test_the_negative_branch_follows_by_its_difference_from_the_positive_one() -> None:
    rule = StepCache(computed=(*range(12),), guided=(0, 4, 8), steps=12, slope=1)
    plan = planned(rule)
    assert [len(each.computed) for each in plan] == [2, 2, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1]

    def together(time: float, branch: str) -> Tensor:
        """Both change wildly, their difference evenly."""
        shared = torch.sin(ROW * time * 3)
        return shared if branch == "positive" else shared + ROW * time

    found, _ = run(rule, plan, TIMES, together)
    for time, each in zip(TIMES, found, strict=True):
        truth = torch.cat([together(time, name) for name in BOTH])
        torch.testing.assert_close(each, truth, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_cache_holds_no_more_predictions_than_its_polynomial_needs(order: int) -> None:
    rule = StepCache(computed=(0, 3, 6, 9), steps=12, order=order)
    _, most = run(rule, planned(rule), TIMES, linear)
    assert most == order + 1


def test_a_cache_is_empty_once_nothing_is_left_to_extrapolate() -> None:
    rule = StepCache(computed=(0, 1, 2, 4, 6, 7, 8, 9, 10, 11), steps=12)
    plan = planned(rule)
    cache = PredictionCache(rule, TIMES, plan)
    held = []
    for i, each in enumerate(plan):
        cache.complete(i, torch.cat([ROW, ROW]) if each.computed else ROW[:0])
        held.append(len(cache.predictions))
    assert held == [1, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("guided", [None, (0, 6)])
def test_an_evaluation_that_is_tried_again_gives_the_same(guided: tuple[int, ...] | None) -> None:
    rule = StepCache(computed=(0, 3, 6, 9), guided=guided, steps=12)
    once, _ = run(rule, planned(rule), TIMES, lambda time, branch: torch.sin(ROW * time))
    again, _ = run(
        rule, planned(rule), TIMES, lambda time, branch: torch.sin(ROW * time), twice=True
    )
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_of_two_evaluations_at_one_time_the_later_one_counts() -> None:
    rule = StepCache(computed=(*range(4), 7), steps=8, slope=1)
    times = [8.0, 6.0, 6.0, 4.0, 4.0, 2.0, 2.0, 1.0]
    plan = planned(rule, 8, wanted=lambda i: BOTH[:1])
    cache = PredictionCache(rule, times, plan)
    for i, value in enumerate([8.0, 0.0, 6.0, 4.0]):
        cache.complete(i, ROW * value)
    torch.testing.assert_close(cache.complete(4, ROW[:0]), ROW * 4)
    torch.testing.assert_close(cache.complete(5, ROW[:0]), ROW * 2)


def test_a_computed_prediction_is_passed_on_as_it_is() -> None:
    cache = PredictionCache(EVERY_THIRD, TIMES, planned())
    rows = torch.cat([ROW, ROW])
    assert cache.complete(0, rows) is rows
