"""The memory that a rank reports for requests."""

from __future__ import annotations

from pathlib import Path

import pytest
from engineless import load

from multimodal_gen.runtime.managers import gpu_worker
from multimodal_gen.runtime.managers.gpu_worker import GPUWorker

BUDGET = 10**9


@pytest.fixture
def worker(bundled_model: Path, monkeypatch: pytest.MonkeyPatch) -> GPUWorker:
    monkeypatch.setattr(gpu_worker, "free_bytes", lambda device, ranks: BUDGET)
    return GPUWorker(load(bundled_model))


@pytest.mark.parametrize(
    ("loras", "left"), [(BUDGET // 10, BUDGET - BUDGET // 10), (BUDGET, BUDGET // 2)]
)
def test_loras_have_their_room_but_never_more_than_half(
    worker: GPUWorker, loras: int, left: int
) -> None:
    worker._adapter_bytes = loras
    assert worker.loaded("test", 1).memory_bytes == left
