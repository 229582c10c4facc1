"""Pictures of 4096 x 4096 pixels, in tiles, on the device that counts the bytes that are alive."""

from typing import Any

import pytest
from device_process import run_on_device


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    seen: dict[str, Any] = run_on_device("decode_on_device.py")
    return seen


@pytest.mark.parametrize("work", ["decode", "encode"])
def test_a_large_picture_takes_no_more_memory_than_is_stated(
    seen: dict[str, Any], work: str
) -> None:
    assert seen[work]["alive"] <= seen[work]["stated"] < seen["tiles"]["whole"] / 4


def test_it_is_decoded_in_as_many_tiles_as_diffusers_has(seen: dict[str, Any]) -> None:
    assert seen["tiles"]["count"] == 11**2
