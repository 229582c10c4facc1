"""A prompt enhancer on a device that does not have room for all weights."""

import pytest
from device_process import run_on_device


@pytest.mark.slow
def test_a_prompt_becomes_the_same_text_wherever_the_weights_are() -> None:
    whole, host, streamed = run_on_device("enhancer_on_device.py").values()
    assert (whole["mode"], host["mode"], streamed["mode"]) == ("device", "host", "streamed")
    assert host["text"] == streamed["text"] == whole["text"]
    assert "enhance" in host["switches"]
