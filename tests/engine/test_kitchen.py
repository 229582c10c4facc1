"""Products of comfy-kitchen, which has the same ones for CPUs as for GPUs."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from multimodal_gen.runtime.layers.quantized import int8, kitchen, rotated
from multimodal_gen.runtime.layers.quantized.int8 import Int8Storage
from multimodal_gen.runtime.layers.quantized.int8_product import quantized_rows
from multimodal_gen.runtime.layers.quantized.rotated import RotatedStorage

pytest.importorskip("comfy_kitchen", reason="the extra quantized")
X = torch.randn(3, 40, 256, generator=torch.Generator().manual_seed(0))


def storage(group: int | None) -> Any:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(1))
    own = Int8Storage(*quantized_rows(weight), quantizes_inputs=True)
    return own if group is None else RotatedStorage(own, group)


@pytest.mark.parametrize("group", [None, 16, 64, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_they_are_the_same_as_ours(
    group: int | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = storage(group).product(X.to(dtype)).float()
    used: list[int | None] = []

    def product(x: Tensor, values: Tensor, scales: Tensor, group: int | None = None) -> Tensor:
        used.append(group)
        return kitchen._product(x, values, scales, group)

    for module in (int8, rotated):
        monkeypatch.setattr(module, "kitchen_product", product)
    monkeypatch.setattr(int8, "has_int8_product", lambda values: True)
    theirs = storage(group).product(X.to(dtype)).float()
    assert used == [group]
    error = ((ours - theirs).norm() / ours.norm()).item()
    # A last bit decides how some inputs are rounded.
    assert error < (1e-3 if dtype == torch.float32 else 0.01)


def test_they_are_tried_before_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kitchen.is_correct(torch.device("cpu"))
    wrong = partial(torch.full, (40, 64), 1.0)
    monkeypatch.setattr(kitchen, "_product", lambda *args: wrong())
    assert not kitchen.is_correct(torch.device("cpu"))


def test_on_a_cpu_ours_are_used() -> None:
    own = storage(None)
    assert kitchen.kitchen_product(X, own.values, own.scales) is None
