"""What eight GPUs would do, counted without them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch.distributed as dist

from multimodal_gen.benchmarks.parallel.projected_models import PROJECTED_MODELS
from multimodal_gen.benchmarks.parallel.projection import RANKS, project
from multimodal_gen.benchmarks.parallel.work import pretended_ranks, work_of
from multimodal_gen.configs.parallel import ParallelConfig
from multimodal_gen.scheduling.parallel.shape import Evaluation
from multimodal_gen.scheduling.parallel.traffic import traffic

FLUX = PROJECTED_MODELS["flux"]


@pytest.fixture(autouse=True)
def ranks() -> Iterator[None]:
    with pretended_ranks(RANKS):
        yield
    assert not dist.is_initialized()


def evaluation() -> Evaluation:
    return Evaluation(
        shape=FLUX.config.shape, rows=1, tokens=FLUX.tokens, output=4096 * 64, itemsize=2
    )


def test_operations_of_a_real_model_are_those_of_its_shape() -> None:
    work, counted = evaluation(), work_of(FLUX, ParallelConfig())
    assert counted.operations == pytest.approx(work.products + work.attention, rel=0.01)
    assert not counted.exchanged


@pytest.mark.parametrize("on", [ParallelConfig(ulysses=8), ParallelConfig(ulysses=4, tensor=2)])
def test_bytes_of_a_real_model_are_those_of_the_formula(on: ParallelConfig) -> None:
    counted = work_of(FLUX, on)
    for axis, told in traffic(evaluation(), on).items():
        assert counted.exchanged[axis].sent == pytest.approx(told.sent, rel=0.05)
        assert counted.exchanged[axis].exchanges == told.exchanges
    assert counted.operations * RANKS == pytest.approx(
        work_of(FLUX, ParallelConfig()).operations, rel=0.02
    )


def test_the_fastest_product_comes_first() -> None:
    products = [ParallelConfig(tensor=8), ParallelConfig(ulysses=8)]
    first, second = project(FLUX, products)
    assert (first.on, second.on) == (products[1], products[0])
    assert 1 > first.efficiency > second.efficiency > 0
    assert first.efficiency_apart < first.efficiency_reading < first.efficiency
