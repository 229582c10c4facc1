"""How many operations an evaluation is, so that it gets no more of them unnoticed."""

from typing import Any

import pytest

Seen = dict[str, Any]

MOST = {
    "flux": 369,
    "chroma": 424,
    "stable_diffusion_3": 273,
    "z_image": 479,
    "qwen_image": 366,
    "flux2": 351,
    "qwen_image_21": 209,
    "krea2": 484,
    "ltx2": 1226,
    "minimax_h3": 323,
    "wan": 395,
    "wan_vace": 600,
}
"""By native family, for two requests: see `device_cases.operations`. Lower it when it gets less.

One for each request checks that its latents are finite."""


@pytest.fixture
def operations(seen: Seen) -> dict[str, int]:
    operations: dict[str, int] = seen["operations"]
    return operations


def test_every_native_family_is_counted(operations: dict[str, int]) -> None:
    assert operations.keys() == MOST.keys()


@pytest.mark.parametrize("family", MOST)
def test_an_evaluation_is_no_more_operations_than_it_was(
    operations: dict[str, int], family: str
) -> None:
    assert operations[family] <= MOST[family]
