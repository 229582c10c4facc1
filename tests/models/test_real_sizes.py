"""Both sides of the benchmark of real sizes compute the same, in their smallest form."""

from __future__ import annotations

import pytest
import torch

from multimodal_gen.benchmarks.real_size.__main__ import in_turn, model_figures
from multimodal_gen.benchmarks.real_size.denoisers import REAL_DENOISERS
from multimodal_gen.benchmarks.real_size.sides import Sides, likeness


@pytest.mark.parametrize("name", ["z_image", "flux", "wan", "sdxl"])
@torch.inference_mode()
def test_both_sides_have_the_same_weights_and_inputs(name: str) -> None:
    sides = Sides(REAL_DENOISERS[name], torch.float32, tiny=True)
    theirs, ours = (side(compiled=False)() for side in (sides.diffusers, sides.ours))
    assert likeness(ours, theirs) < 1e-5
    if REAL_DENOISERS[name].native is not None:
        int8 = sides.ours(compiled=False, quantization="int8")()
        assert 1e-6 < likeness(int8, theirs) < 0.02


@torch.inference_mode()
def test_figures_are_ratios_of_evaluations_that_take_turns() -> None:
    figures = {each.name: each for each in model_figures("z_image", "float32", 1, "tiny")}
    assert figures.keys() == {"real_size/z_image/float32/eager", "real_size/z_image/int8"}
    assert all(each.value > 0 for each in figures.values())
    order: list[str] = []
    in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3
