"""How many operations an evaluation is, so that it gets no more of them unnoticed."""

from typing import Any

import pytest
from real_depths import MODELS, kernels

Seen = dict[str, Any]

MOST = {
    "flux": 357,
    "chroma": 412,
    "stable_diffusion_3": 259,
    "z_image": 387,
    "qwen_image": 357,
    "flux2": 342,
    "qwen_image_21": 200,
    "krea2": 310,
    "ltx2": 1223,
    "minimax_h3": 325,
    "wan": 366,
    "wan_vace": 571,
}
"""By native family, for two requests: see `device_cases.operations`. Lower it when it gets less.

One for each request checks that its latents are finite."""
MOST_KERNELS = {
    "FLUX.1-dev": 761,
    "Wan 2.1 14B": 822,
    "Chroma": 1004,
    "Stable Diffusion 3.5 large": 892,
    "Z-Image": 631,
    "Qwen-Image": 1401,
    "FLUX.2-dev": 630,
    "Qwen-Image 2.1": 533,
    "Krea 2": 692,
    "LTX-2": 3900,
    "MiniMax-H3": 1474,
}
"""Without views, at the depth of published models, with fused kernels: see `real_depths.py`."""
DEEP = [
    pytest.param(name, marks=() if name in ("FLUX.1-dev", "Wan 2.1 14B") else pytest.mark.slow)
    for name in MOST_KERNELS
]


@pytest.fixture
def operations(seen: Seen) -> dict[str, int]:
    operations: dict[str, int] = seen["operations"]
    return operations


@pytest.mark.slow
def test_every_native_family_is_counted(operations: dict[str, int]) -> None:
    assert operations.keys() == MOST.keys()


@pytest.mark.slow
@pytest.mark.parametrize("family", MOST)
def test_an_evaluation_is_no_more_operations_than_it_was(
    operations: dict[str, int], family: str
) -> None:
    assert operations[family] <= MOST[family]


def test_every_native_transformer_has_a_depth() -> None:
    assert MODELS.keys() == MOST_KERNELS.keys()


@pytest.mark.parametrize("model", DEEP)
def test_an_evaluation_at_real_depth_is_no_more_kernels_than_it_was(model: str) -> None:
    assert kernels(model) <= MOST_KERNELS[model]
