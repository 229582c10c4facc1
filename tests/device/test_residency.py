"""Weights that don't all fit: what is on the device, and when, with a budget of 0.3 of them."""

from typing import Any

import pytest
from device_process import run_on_device
from residency_cases import CASES

Report = dict[str, Any]


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    reports: dict[str, Report] = run_on_device("residency_cases.py")
    return reports


@pytest.fixture(params=CASES)
def report(reports: dict[str, Report], request: pytest.FixtureRequest) -> Report:
    report = reports[request.param]
    assert "error" not in report, report["error"]
    return report


def test_pixels_are_those_of_resident_weights(report: Report) -> None:
    assert report["same pixels"]
    assert "transformer streamed" in report["sentence"] or "unet streamed" in report["sentence"]


def test_the_bytes_alive_never_exceed_the_budget(report: Report) -> None:
    assert 0 < report["peak"] <= report["budget"]


def test_each_block_is_copied_once_an_evaluation_in_the_order_of_their_turns(
    report: Report,
) -> None:
    streamed = [each for each in report["evaluations"] if each["called"]]
    assert streamed
    for evaluation in streamed:
        assert evaluation["copied"] == evaluation["called"]
        assert len({*evaluation["copied"]}) == len(evaluation["copied"])


def test_the_host_waits_for_nothing_that_it_did_not_wait_for_before(report: Report) -> None:
    assert report["new waits"] == []


def test_a_known_prompt_needs_no_encoder(report: Report) -> None:
    assert report["encoded again"] == 0
