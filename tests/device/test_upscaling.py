"""Results that a model enlarges, on a device that notices what makes the host wait."""

from device_process import run_on_device


def test_neither_tiles_nor_enlarged_latents_wait_for_the_device() -> None:
    found = run_on_device("upscalers_on_device.py")
    assert {name: len(waits) for name, waits in found.items()} == {"pixels": 2, "latents": 3}
    assert not any(each for waits in found.values() for each in waits), found
