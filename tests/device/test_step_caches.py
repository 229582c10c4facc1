"""Extrapolated evaluations, on a device that notices what makes the host wait."""

from typing import Any

MOST_OPERATIONS = 14
"""Operations of an extrapolated evaluation of two requests, with its step."""


def test_evaluations_of_a_step_cache_do_not_wait(seen: dict[str, Any]) -> None:
    assert seen["extrapolation"]["waits"] == 0


def test_an_extrapolated_evaluation_is_a_few_operations(seen: dict[str, Any]) -> None:
    counts = seen["extrapolation"]
    assert len(counts["extrapolated"]) > 4
    assert max(counts["extrapolated"]) <= MOST_OPERATIONS
    assert min(counts["computed"]) > 10 * MOST_OPERATIONS
