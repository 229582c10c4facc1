"""Evaluations under control, on a device that notices what makes the host wait."""

import pytest
from device_process import run_on_device


@pytest.mark.slow
def test_rows_under_different_controls_never_wait_for_the_device() -> None:
    found = run_on_device("controls_on_device.py")
    assert {"sdxl", "flux-dev", "sd3", "qwenimage", "zimage"} == found.keys()
    assert all(waits == [{}] * 4 for waits in found.values()), found
