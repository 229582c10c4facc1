"""The device that only pretends is strict where a GPU is, and counts."""

import pytest
from device_checks import CHECKS
from device_process import run_on_device


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str | None]:
    outcomes: dict[str, str | None] = run_on_device("device_checks.py")
    return outcomes


@pytest.mark.parametrize("check", [check.__name__ for check in CHECKS])
def test_the_device_is_as_it_says(outcomes: dict[str, str | None], check: str) -> None:
    assert outcomes[check] is None, outcomes[check]
