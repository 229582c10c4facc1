"""What is told of a checkpoint before it is loaded is what its engine tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from engineless import load

from multimodal_gen.launch.expected_model import facts_of

SLOW = (
    "chroma cogvideox flux2-dev flux-kontext flux-fill hidream hunyuan-video krea2 krea2-turbo ltx "
    "ltx2 pixart-sigma qwenimage-edit qwenimage21 sana sd3 sd35 sdxl wan wan22 wan-i2v wan-vace "
    "zimage"
)


@pytest.mark.parametrize(
    "name",
    [
        "flux-dev",
        "flux-schnell",
        "flux2-klein",
        "flux2-klein-base",
        "qwenimage",
        "sd15",
        *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW.split()),
    ],
)
def test_parameters_without_effect_are_known_before_loading(
    name: str, checkpoints: Callable[..., Path]
) -> None:
    folder = checkpoints(name)
    _, no_effect = facts_of(folder)
    assert no_effect == load(folder).model_info("test").no_effect


def test_limits_are_known_before_loading(bundled_model: Path) -> None:
    limits, no_effect = facts_of(bundled_model)
    assert (limits.smallest_side, limits.largest_side) == (96, 128)
    assert no_effect == ("guidance_scale",)
