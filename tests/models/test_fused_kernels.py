"""Fused kernels: where they are used, and that they give what torch's operations do.

The kernels' own numbers need Triton, whose interpreter runs them on a CPU.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_gen.runtime.layers.fused import choice
from multimodal_gen.runtime.layers.modulation import gated_add, modulated_norm

SCRIPT = Path(__file__).parents[1] / "helpers" / "fused_kernels.py"
CPU = torch.device("cpu")
TOLERANCE = {"torch.float32": 1e-5, "torch.bfloat16": 0.01}
"""The interpreter rounds bfloat16 towards zero."""


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@dataclass
class Wrong:
    """Kernels that give other numbers, or none."""

    error: Exception | None = None
    calls: list[str] = field(default_factory=list)

    def norm(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        self.calls.append("norm")
        if self.error is not None:
            raise self.error
        return torch.zeros_like(x)

    def add_norm(self, x: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return self.norm(x), torch.zeros_like(x)

    def turned(self, qk: Tensor, *_: Any, **__: Any) -> Tensor:
        return self.norm(qk)


@pytest.fixture
def fresh_choice() -> Iterator[None]:
    choice._kernels_on.cache_clear()
    yield
    choice._kernels_on.cache_clear()


@pytest.mark.usefixtures("fresh_choice")
@pytest.mark.parametrize(
    "kernels", [Wrong(), Wrong(RuntimeError("Failed to find C compiler"))], ids=["wrong", "broken"]
)
def test_a_device_where_kernels_fail_or_differ_does_without(
    kernels: Wrong, caplog: pytest.LogCaptureFixture
) -> None:
    with mock.patch.object(choice, "import_module", return_value=kernels):
        assert choice._kernels_on(CPU) is None
        tried = len(kernels.calls)
        assert choice._kernels_on(CPU) is None
    assert len(kernels.calls) == tried
    assert "without fused kernels" in caplog.text


def test_a_cpu_has_no_fused_kernels() -> None:
    assert choice.kernels_for(numbers(1, 2, 3)) is None


def test_vectors_of_single_tokens_are_not_left_to_kernels() -> None:
    x, vector = numbers(2, 3, 8), numbers(2, 3, 8, seed=1)
    with mock.patch.object(choice, "kernels_for", return_value=Wrong(RuntimeError())):
        found = modulated_norm(x, vector, vector)
    torch.testing.assert_close(found, F.layer_norm(x, (8,), eps=1e-6) * vector + vector)


def test_wider_vectors_are_rounded_once() -> None:
    x, update = (numbers(2, 3, 8, seed=i, dtype=torch.bfloat16) for i in range(2))
    shift, scale, gate = (numbers(2, 1, 8, seed=i) for i in range(3))
    exact = F.layer_norm(x.float(), (8,), eps=1e-6) * scale + shift
    assert torch.equal(modulated_norm(x, shift, scale), exact.bfloat16())
    assert torch.equal(gated_add(x, gate, update), (x + gate * update.float()).bfloat16())


@pytest.fixture(scope="module")
def gaps() -> dict[str, dict[str, float]]:
    """Differences from torch's operations, by type and case, of a process whose kernels the
    interpreter runs."""
    pytest.importorskip("triton", reason="Triton comes with torch for GPUs")
    command = [sys.executable, str(SCRIPT)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(("dtype", "most"), TOLERANCE.items())
def test_the_kernels_equal_torch(
    gaps: dict[str, dict[str, float]], dtype: str, most: float
) -> None:
    assert len(gaps[dtype]) >= 11
    assert {case: gap for case, gap in gaps[dtype].items() if gap > most} == {}
