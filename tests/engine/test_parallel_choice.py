"""How ranks share an evaluation if nobody says."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.parallel import ParallelConfig
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.runtime.models.dits.flux.config import FluxConfig
from multimodal_gen.runtime.models.dits.qwen_image.config import QwenImageConfig
from multimodal_gen.runtime.models.dits.wan.config import WanConfig
from multimodal_gen.scheduling.parallel.choice import choose_parallel
from multimodal_gen.scheduling.parallel.machines import cpu_ranks, gpu_called
from multimodal_gen.scheduling.parallel.rank_work import estimated_work, seconds
from multimodal_gen.scheduling.parallel.shape import Evaluation
from multimodal_gen.scheduling.parallel.traffic import Traffic, traffic

H200 = gpu_called("NVIDIA H200").with_memory(130e9)
FLUX = Evaluation(
    shape=FluxConfig().shape, rows=1, tokens=4608, output=4096 * 64, itemsize=2, weights=24e9
)
QWEN = Evaluation(
    shape=QwenImageConfig().shape, rows=2, tokens=4352, output=4096 * 64, itemsize=2, weights=41e9
)
WAN = Evaluation(
    shape=WanConfig().shape, rows=2, tokens=75600, output=75600 * 64, itemsize=2, weights=29e9
)


def picked(work: Evaluation | None, machine: object = H200, **arguments: object) -> ParallelConfig:
    return choose_parallel(EngineArgs(**arguments), work, machine).config  # type: ignore[arg-type]


@pytest.mark.parametrize("ranks", [2, 4, 8, 16])
def test_branches_of_guidance_go_to_groups_of_their_own(ranks: int) -> None:
    assert picked(QWEN, num_gpus=ranks) == ParallelConfig(cfg=2, ulysses=ranks // 2)
    assert picked(WAN, num_gpus=ranks) == ParallelConfig(cfg=2, ulysses=ranks // 2)


def test_a_ring_takes_over_where_links_are_slow_and_attention_is_long() -> None:
    slow = gpu_called("RTX 4090").with_memory(130e9)
    on = picked(WAN, slow, num_gpus=8)
    assert on.ring > 1
    assert (on.cfg, on.tensor) == (2, 1)


def test_a_model_without_guidance_has_one_group() -> None:
    assert picked(FLUX, num_gpus=8) == ParallelConfig(ulysses=8)


def test_the_rank_with_the_most_heads_and_tokens_counts() -> None:
    on, few = ParallelConfig(ulysses=16), replace(FLUX, shape=replace(FLUX.shape, heads=4))
    expected = FLUX.products / 16 + FLUX.attention / 4
    assert estimated_work(few, on, H200).operations == pytest.approx(expected)


def test_sequences_do_not_cross_hosts_while_links_there_are_slow() -> None:
    hosts = replace(H200, ranks_per_host=8)
    assert picked(QWEN, hosts, num_gpus=16) == ParallelConfig(cfg=2, ulysses=8)


def test_degrees_that_are_given_stay() -> None:
    assert picked(QWEN, num_gpus=8, ulysses_degree=8) == ParallelConfig(ulysses=8)
    assert picked(QWEN, num_gpus=8, ulysses_degree=1, ring_degree=1, tensor_degree=1).cfg == 8
    assert picked(FLUX, num_gpus=8, enable_cfg_parallel=True) == ParallelConfig(cfg=2, ulysses=4)
    both = picked(QWEN, num_gpus=8, ring_degree=2, tensor_degree=2)
    assert (both.ring, both.tensor, prod((both.cfg, both.ulysses))) == (2, 2, 2)


def test_ranks_of_a_cpu_share_rows_first() -> None:
    assert picked(QWEN, cpu_ranks(2), num_gpus=2) == ParallelConfig(cfg=2)


def test_a_denoiser_that_cannot_be_split_shares_its_rows_only() -> None:
    assert picked(None, num_gpus=4) == ParallelConfig(cfg=4)
    assert picked(None, num_gpus=4, ulysses_degree=1) == ParallelConfig(cfg=4)
    with pytest.raises(InvalidRequest, match="ring_degree"):
        picked(None, num_gpus=4, ring_degree=2)


def test_the_choice_says_why() -> None:
    said = choose_parallel(EngineArgs(num_gpus=8), QWEN, H200).sentence
    assert said.startswith("8 ranks: cfg 2 x ulysses 4, about ")
    assert "% of 8 times as fast; instead, ulysses 8 " in said


def test_ulysses_sends_four_tensors_of_a_share_to_all_other_ranks() -> None:
    sent = 57 * 4 * (4608 / 8) * 3072 * 2 * 7 / 8
    assert traffic(FLUX, ParallelConfig(ulysses=8))["ulysses"] == Traffic(sent, 3 * 57)


def test_tensor_ranks_keep_less_of_the_weights() -> None:
    small = H200.with_memory(12e9)
    copied = [
        estimated_work(FLUX, ParallelConfig(tensor=ranks), small).copied for ranks in (1, 2, 4)
    ]
    assert copied[0] > copied[1] > copied[2] == 0


def test_twice_the_ranks_never_take_twice_as_long() -> None:
    for work in (FLUX, QWEN, WAN):
        times = [
            seconds(estimated_work(work, on, H200), on, H200)
            for on in (ParallelConfig(ulysses=ranks) for ranks in (1, 2, 4, 8))
        ]
        assert times == sorted(times, reverse=True)
