"""Evaluations under control, on a device that notices what makes the host wait."""

from device_process import run_on_device


def test_rows_under_different_controls_never_wait_for_the_device() -> None:
    assert run_on_device("controls_on_device.py") == [{}] * 4
