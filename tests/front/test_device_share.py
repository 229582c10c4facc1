"""What each of several engines gets of its machine."""

from __future__ import annotations

import pytest

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.launch import device_share
from multimodal_gen.launch.cores import Cores
from multimodal_gen.launch.device_share import VISIBLE, shares_of

TWO, ONE, ON_CPU = EngineArgs(num_gpus=2), EngineArgs(), EngineArgs(device="cpu")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "4,5,6,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(device_share, "usable_cores", lambda: Cores(12, is_rationed=False))


def gpus_of(*engines: EngineArgs) -> list[str | None]:
    return [share.get(VISIBLE) for share in shares_of(engines)]


def test_an_engine_that_is_alone_has_everything() -> None:
    assert shares_of([TWO]) == [{}]


def test_each_engine_has_gpus_of_its_own() -> None:
    assert gpus_of(TWO, ONE, ON_CPU, ONE) == ["4,5", "6", None, "7"]


def test_engines_share_gpus_if_there_are_too_few() -> None:
    assert gpus_of(TWO, TWO, ONE) == ["4,5", "6,7", "4"]


def test_one_that_asks_for_more_gpus_than_there_are_is_told_so_by_itself() -> None:
    assert gpus_of(EngineArgs(num_gpus=5), ONE) == [None, "4"]


def test_without_a_gpu_only_the_cores_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "")
    assert shares_of([TWO, ONE, ONE]) == 3 * [
        {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "PASSIVE"}
    ]


def test_an_operators_number_of_threads_is_not_exceeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert {share["OMP_NUM_THREADS"] for share in shares_of([ONE, ONE])} == {"2"}
