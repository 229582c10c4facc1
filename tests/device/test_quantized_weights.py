"""Weights that keep their form, on a device that notices what makes the host wait."""

from device_process import run_on_device


def test_they_are_unpacked_on_the_device_without_waiting_for_it() -> None:
    seen = run_on_device("weights_on_device.py")
    assert seen["waits"] == {}
    assert seen["apart"] < 1e-4


def test_ggufs_blocks_are_unpacked_on_the_device_without_waiting_for_it() -> None:
    seen = run_on_device("blocks_on_device.py")
    assert "IQ2_XXS" in seen
    for kind, found in seen.items():
        assert found["waits"] == {}, kind
        assert found["apart"] < 1e-6, kind
