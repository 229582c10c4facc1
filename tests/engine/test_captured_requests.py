"""Requests whose evaluations are captured, in plans: preempted, joined, and with what can't be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from engineless import load
from policy_simulation import prepared_of, request
from stand_in_graphs import StandInGraphs
from torch import Tensor

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Ack, Phase, Plan, Work
from multimodal_gen.messages.rank_args import RankArgs
from multimodal_gen.messages.request import Runner
from multimodal_gen.messages.validation import requests_of
from multimodal_gen.runtime.distributed.mesh import Axis, Mesh
from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.managers import gpu_worker
from multimodal_gen.runtime.managers.gpu_worker import GPUWorker
from multimodal_gen.runtime.managers.rank_device import PeakMemory
from multimodal_gen.runtime.models.captured import graph_cache
from multimodal_gen.runtime.models.captured.graph_cache import GraphCache
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.runtime.residency.residency import Residency
from multimodal_gen.scheduling.cost_model import CostModel
from multimodal_gen.scheduling.policy import Policy
from multimodal_gen.scheduling.working_memory import GRAPH_BYTES, can_capture

STEPS = 5


@pytest.fixture(scope="module")
def graphs() -> StandInGraphs:
    return StandInGraphs()


@pytest.fixture(scope="module")
def pipeline(bundled_model: Path, graphs: StandInGraphs) -> ComposedPipeline:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_cache, "graphs_of", lambda device: graphs)
        return load(bundled_model)


class Requests:
    """Plans for requests with one runner."""

    def __init__(self, pipeline: ComposedPipeline, runner: Runner) -> None:
        self.worker = GPUWorker(pipeline)
        self._runner = runner

    def begin(self, *prompts: str, **params: Any) -> list[str]:
        model = self.worker.pipeline.model_info("test")
        reqs = [
            requests_of(
                SamplingParams(prompt=prompt, seed=seed, num_inference_steps=STEPS, **params), model
            )[0]
            for seed, prompt in enumerate(prompts)
        ]
        ids = tuple(req.id for req in reqs)
        self._plan(Work(phase=Phase.ENCODE, ids=ids), admit=tuple(reqs))
        return [*ids]

    def advance(self, ids: Sequence[str], k: int = 1) -> Ack:
        work = Work(phase=Phase.DENOISE, ids=tuple(ids), k=k, runner=self._runner)
        ack = self._plan(work)
        assert ack.error is None
        return ack

    def latents(self, name: str) -> Tensor:
        return self.worker.states[name].running()[1]

    def _plan(self, work: Work, **fields: Any) -> Ack:
        return self.worker.execute(Plan(number=0, work=work, **fields)).ack()[0]


def alone(pipeline: ComposedPipeline, runner: Runner) -> list[Tensor]:
    """Latents of two requests, one after the other."""
    requests = Requests(pipeline, runner)
    ids = requests.begin("a red heart", "a pizza")
    for name in ids:
        requests.advance([name], STEPS)
    return [requests.latents(name) for name in ids]


def test_captured_requests_are_as_eager_ones(
    pipeline: ComposedPipeline, graphs: StandInGraphs
) -> None:
    before = graphs.replays
    for ours, theirs in zip(alone(pipeline, "captured"), alone(pipeline, "eager"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert graphs.replays > before


def test_preemption_changes_no_bit_of_a_captured_request(pipeline: ComposedPipeline) -> None:
    expected = alone(pipeline, "captured")
    requests = Requests(pipeline, "captured")
    ids = requests.begin("a red heart", "a pizza")
    for at in (0, 1, 1, 0, 1, 0, 0, 1, 1, 0):
        requests.advance([ids[at]])
    for name, latents in zip(ids, expected, strict=True):
        assert torch.equal(requests.latents(name), latents)


def test_replay_changes_no_bit_though_no_graph_is_left(pipeline: ComposedPipeline) -> None:
    expected, cache = alone(pipeline, "captured"), pipeline.runners.graphs
    assert cache is not None
    cache.forget()
    assert len(cache) == 0
    for ours, theirs in zip(alone(pipeline, "captured"), expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("runner", "peak"), [("eager", 7), ("captured", 0)])
def test_replays_do_not_tell_what_an_evaluation_takes(
    pipeline: ComposedPipeline, runner: Runner, peak: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PeakMemory, "bytes", 7, raising=False)
    monkeypatch.setattr(PeakMemory, "__init__", lambda self, device: None)
    monkeypatch.setattr(PeakMemory, "__enter__", lambda self: self)
    monkeypatch.setattr(PeakMemory, "__exit__", lambda self, *error: None)
    requests = Requests(pipeline, runner)
    ids = requests.begin("a red heart")
    assert requests.advance(ids).peak_bytes == peak


def test_requests_that_join_and_leave_are_as_alone(pipeline: ComposedPipeline) -> None:
    expected = alone(pipeline, "eager")
    requests = Requests(pipeline, "captured")
    ids = requests.begin("a red heart", "a pizza")
    requests.advance(ids[:1], 2)
    requests.advance(ids, STEPS - 2)
    requests.advance(ids[1:], 2)
    for name, latents in zip(ids, expected, strict=True):
        torch.testing.assert_close(requests.latents(name), latents, rtol=1e-4, atol=1e-4)


def test_large_evaluations_are_not_captured(
    pipeline: ComposedPipeline, graphs: StandInGraphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_parameters", 10**14)
    before = graphs.replays
    expected = alone(pipeline, "eager")
    for ours, theirs in zip(alone(pipeline, "captured"), expected, strict=True):
        assert torch.equal(ours, theirs)
    assert graphs.replays == before


@pytest.mark.parametrize(
    ("parameters", "tokens", "captured"),
    [
        (12 * 10**9, 1536, True),  # FLUX.1 at 512 x 512
        (12 * 10**9, 4608, False),  # and at 1024 x 1024
        (13 * 10**8, 2 * 32_760, False),  # Wan 1.3B, a guided video at 480p
        (10**7, 16 * 300, True),
    ],
)
def test_small_evaluations_can_be_captured(parameters: int, tokens: int, captured: bool) -> None:
    assert can_capture(parameters, tokens) == captured


@pytest.mark.parametrize(("free", "set_aside"), [(8 * 2**30, GRAPH_BYTES), (8 * 2**30 - 1, 0)])
def test_memory_is_set_aside_for_graphs_where_there_is_plenty(
    pipeline: ComposedPipeline, free: int, set_aside: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_worker, "free_bytes", lambda device, ranks: free)
    worker = GPUWorker(pipeline)
    assert worker.loaded("test", 1).memory_bytes == free - set_aside
    assert worker.captures == bool(set_aside)


def test_without_graphs_no_memory_is_set_aside(
    pipeline: ComposedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_worker, "free_bytes", lambda device, ranks: 2**40)
    monkeypatch.setattr(pipeline.runners, "graphs", None)
    worker = GPUWorker(pipeline)
    assert worker.loaded("test", 1).memory_bytes == 2**40
    assert not worker.captures


def test_compile_off_means_no_graphs_either(
    bundled_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_cache, "graphs_of", lambda device: StandInGraphs())
    monkeypatch.setattr(gpu_worker, "free_bytes", lambda device, ranks: 2**40)
    args = RankArgs(
        rank=0,
        engine=EngineArgs(device="cpu", compile="off"),
        model_folder=str(bundled_model),
        model_name="test",
        socket_folder="",
        ranks_address="",
    )
    worker = GPUWorker.load(args)
    worker.loaded("test", 1)
    assert not worker.captures


def test_weights_that_move_are_not_captured(
    bundled_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_cache, "graphs_of", lambda device: StandInGraphs())
    monkeypatch.setattr(Residency, "stays", lambda self, name: name != "transformer")
    assert load(bundled_model).runners.graphs is None


@pytest.mark.parametrize(
    ("mesh", "captures"),
    [
        (Mesh(), True),
        (Mesh(world_size=2, cfg=Axis(0, 2)), True),
        (Mesh(world_size=2, sequence=Axis(0, 2), ulysses=Axis(0, 2)), False),
        (Mesh(world_size=2, sequence=Axis(0, 2), ring=Axis(0, 2)), False),
        (Mesh(world_size=2, tensor=Axis(0, 2)), False),
    ],
)
def test_ranks_that_share_a_row_do_not_capture(
    mesh: Mesh, captures: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_cache, "graphs_of", lambda device: StandInGraphs())
    context = RankContext(torch.device("cpu"), torch.float32, mesh, "auto")
    assert (GraphCache.of(context) is not None) == captures


def test_a_cpu_has_no_graphs() -> None:
    context = RankContext(torch.device("cpu"), torch.float32, Mesh(), "auto")
    assert GraphCache.of(context) is None


def test_libraries_modules_are_not_captured(
    checkpoints: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_cache, "graphs_of", lambda device: StandInGraphs())
    assert load(checkpoints("sd15")).runners.graphs is None


@pytest.mark.parametrize(
    ("ready", "side", "runner"),
    [
        (("captured",), 64, "captured"),
        (("captured",), 4096, "eager"),
        (("compiled", "captured"), 64, "captured"),
        (("compiled", "captured"), 4096, "compiled"),
        ((), 64, "eager"),
    ],
)
def test_small_requests_are_captured_and_large_ones_compiled(
    ready: Sequence[Runner], side: int, runner: Runner
) -> None:
    cost = CostModel(parameters=10**9, memory_bytes=0, device="cuda", path=None)
    policy = Policy(cost, max_batch=8, max_queue=8)
    for each in ready:
        policy.use(each)
    req = request("a", steps=2, side=side)
    policy.submit(req, 0.0)
    first = policy.next(0.0)
    assert first is not None
    prepared = {"a": prepared_of(req)}
    policy.completed(first, advanced=1, seconds=0.1, prepared=prepared, now=1.0)
    work = policy.next(1.0)
    assert work is not None
    assert (work.phase, work.runner) == (Phase.DENOISE, runner)
