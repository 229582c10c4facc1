"""Rules of step caches: which evaluations are computed, and the weights of the others."""

from __future__ import annotations

import math

import msgspec
import pytest

from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.step_cache import (
    CALIBRATED,
    FEWEST_EVALUATIONS,
    UNCALIBRATED,
    StepCache,
    at_least,
)

SPARSE = StepCache(computed=(0, 1, 2, 5, 10, 15, 18))
RULES = {"sparse": SPARSE, **UNCALIBRATED}


def places(rule: StepCache, evaluations: int) -> list[int]:
    return [i for i, computed in enumerate(rule.computes(evaluations)) if computed]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_pass_as_long_as_the_calibrated_one_computes_what_the_rule_says(rule: StepCache) -> None:
    assert places(rule, rule.steps) == [*rule.computed]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("evaluations", [28, 39, 50, 80, 100])
def test_longer_passes_compute_the_same_share(rule: StepCache, evaluations: int) -> None:
    share = len(places(rule, evaluations)) / evaluations
    assert share == pytest.approx(len(rule.computed) / rule.steps, abs=1 / evaluations)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("evaluations", range(FEWEST_EVALUATIONS, 101))
def test_no_gap_is_longer_in_time_than_the_rules_longest(rule: StepCache, evaluations: int) -> None:
    def longest(computed: list[int], steps: int) -> float:
        ends = zip(computed, [*computed[1:], steps], strict=True)
        return max((end - start) / steps for start, end in ends)

    allowed = longest([*rule.computed], rule.steps)
    found = longest(places(rule, evaluations), evaluations)
    assert found <= allowed + 1 / evaluations


@pytest.mark.parametrize("evaluations", range(FEWEST_EVALUATIONS, 60))
def test_the_first_evaluation_is_computed_and_guided(evaluations: int) -> None:
    rule = StepCache(computed=(0, 4, 8, 12), guided=(0, 8))
    computes, guides = rule.computes(evaluations), rule.guides(evaluations)
    assert computes[0]
    assert guides[0]
    assert sum(guides) < sum(computes)


@pytest.mark.parametrize(
    "fields",
    [
        {"computed": ()},
        {"computed": (1, 2)},
        {"computed": (0, 2, 2)},
        {"computed": (0, 20)},
        {"computed": (0, 5), "guided": (0, 4)},
        {"computed": (0,), "order": 3},
        {"computed": (0,), "slope": 1.5},
        {"computed": (0,), "every": 2},
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"high": fields}, CALIBRATED)


def test_a_full_slope_follows_a_polynomial_of_the_rules_order() -> None:
    rule = StepCache(computed=(0,), order=2, slope=1)
    times = [1000.0, 700.0, 600.0]
    weights = rule.weights(times, 450.0)
    values = [weight * time**2 for weight, time in zip(weights, times, strict=True)]
    assert sum(values) == pytest.approx(450.0**2)


@pytest.mark.parametrize("slope", [0, 0.4, 1])
@pytest.mark.parametrize("times", [[900.0], [900.0, 850.0], [900.0, 850.0, 700.0]])
def test_weights_keep_what_does_not_change_and_repeat_the_newest(
    slope: float, times: list[float]
) -> None:
    rule = StepCache(computed=(0,), order=2, slope=slope)
    assert sum(rule.weights(times, 500.0)) == pytest.approx(1)
    at_newest = rule.weights(times, times[-1])
    assert at_newest == [*[0] * (len(times) - 1), 1]
    if slope == 0:
        assert rule.weights(times, 500.0) == at_newest


def test_half_a_slope_goes_half_the_way() -> None:
    full, half = (StepCache(computed=(0,), slope=slope) for slope in (1, 0.5))
    ends = [
        sum(w * v for w, v in zip(rule.weights([10.0, 8.0], 4.0), (1.0, 3.0), strict=True))
        for rule in (full, half)
    ]
    assert math.isclose(ends[1] - 3, (ends[0] - 3) / 2)


def test_every_family_whose_loop_is_ours_has_both_qualities() -> None:
    for family in FAMILIES:
        expected = {"high", "fast"} if family.denoiser != "fallback" else set()
        assert family.step_caches.keys() == expected, family.name


def test_faster_qualities_are_lower() -> None:
    assert [at_least(each) for each in ("exact", "high", "fast")] == [
        ("exact",),
        ("exact", "high"),
        ("exact", "high", "fast"),
    ]
