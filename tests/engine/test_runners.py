"""Runners of a request's evaluations, and graphs that are made meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch._dynamo
from engineless import load, start
from policy_simulation import cost_model, prepared_of, request

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.messages.plan import Phase, RunnerReady, Work
from multimodal_gen.messages.rank_args import RankArgs
from multimodal_gen.runtime.managers.graph_maker import GraphMaker
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.scheduling.policy import Policy


class Decided:
    """A policy whose work is acknowledged at once."""

    def __init__(self) -> None:
        self.policy = Policy(cost_model(), max_batch=8, max_queue=100)
        self.now = 0.0

    def work(self, phase: Phase) -> Work:
        """The first work of this phase, not acknowledged."""
        while (work := self.policy.next(self.now)) is not None and work.phase is not phase:
            self.done(work)
        assert work is not None
        return work

    def done(self, work: Work) -> None:
        self.now += 0.1
        encoded = work.ids if work.phase is Phase.ENCODE else ()
        prepared = {id: prepared_of(request(id, steps=6), rows=1) for id in encoded}
        self.policy.completed(work, advanced=work.k, seconds=0.1, prepared=prepared, now=self.now)


def test_requests_keep_the_runner_that_they_began_with_and_share_with_no_other() -> None:
    decided = Decided()
    decided.policy.submit(request("old", steps=6), 0.0)
    first = decided.work(Phase.DENOISE)
    decided.policy.use("compiled")
    decided.policy.submit(request("new", steps=6), decided.now)
    seen = {first.ids: first.runner}
    decided.done(first)
    while (work := decided.policy.next(decided.now)) is not None:
        if work.phase is Phase.DENOISE:
            seen[work.ids] = work.runner
        decided.done(work)
    assert seen == {("old",): "eager", ("new",): "compiled"}


def test_a_request_that_was_begun_elsewhere_is_run_as_it_was_there() -> None:
    import msgspec

    decided = Decided()
    decided.policy.use("compiled")
    decided.policy.submit(msgspec.structs.replace(request("a"), runner="eager"), 0.0)
    assert decided.work(Phase.DENOISE).runner == "eager"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for compiled code, in a process that may compile."""
    folder = tmp_path / "cache" / "compiled"
    folder.parent.mkdir(mode=0o700)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(disable=False):
        yield folder
    torch._dynamo.reset()


def _args(folder: Path, compile: str = "blocks") -> RankArgs:
    engine = EngineArgs(compile=compile)  # type: ignore[arg-type]
    return RankArgs(
        rank=0,
        engine=engine,
        ranks_address="",
        socket_folder="",
        model_folder=str(folder),
        model_name="bundled",
    )


def _evaluate(pipeline: ComposedPipeline) -> None:
    params = SamplingParams(prompt="a heart", width=64, height=64, num_inference_steps=2)
    pipeline.forward(Phase.DENOISE, [start(pipeline, params)], 1)


def _advance(maker: GraphMaker, seconds: float = 60) -> list[RunnerReady]:
    """Let the maker do what it has to, until it has nothing left; gives what it reports."""
    from queue import Empty, SimpleQueue

    woken: SimpleQueue[None] = SimpleQueue()
    told: list[RunnerReady] = []
    maker.start(lambda: woken.put(None), told.append)
    maker.advance()
    try:
        while not told and not maker.is_over:
            woken.get(timeout=seconds)
            maker.advance()
    except Empty:
        pass
    return told


def test_a_folder_that_others_can_write_to_is_not_used(
    cache: Path, bundled_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.mkdir(mode=0o700)
    cache.chmod(0o777)
    assert GraphMaker.of(load(bundled_model), _args(bundled_model)) is None
    assert "others can write to it" in caplog.text


def test_an_engine_that_does_not_compile_uses_what_another_has_compiled(
    cache: Path, bundled_model: Path
) -> None:
    pipeline = load(bundled_model)
    maker = GraphMaker.of(pipeline, _args(bundled_model, "auto"))
    assert maker is not None
    for blocks in pipeline.runners.blocks.values():
        blocks.backend = "eager"
    _evaluate(pipeline)
    maker.kept.add(graph for each in pipeline.runners.recorders.values() for graph in each.found)
    assert _advance(maker) == [RunnerReady(rank=0, runner="compiled")]


@pytest.mark.slow
def test_blocks_are_compiled_in_a_process_of_their_own_and_loaded_from_its_cache(
    cache: Path, bundled_model: Path
) -> None:
    from torch._dynamo.utils import counters

    pipeline = load(bundled_model)
    maker = GraphMaker.of(pipeline, _args(bundled_model))
    assert maker is not None
    params = SamplingParams(prompt="a heart", seed=1, num_inference_steps=4)
    eager, compiled = start(pipeline, params), start(pipeline, params)
    pipeline.forward(Phase.DENOISE, [eager], 4)
    counters.clear()
    assert _advance(maker, 900) == [RunnerReady(rank=0, runner="compiled")]
    assert counters["inductor"]["fxgraph_cache_hit"] == 2
    assert counters["inductor"]["fxgraph_cache_miss"] == 0
    compiled.runner = "compiled"
    pipeline.forward(Phase.DENOISE, [compiled], 4)
    one, other = eager.running()[1], compiled.running()[1]
    assert 0 < (one - other).abs().max() <= 1e-5 * one.abs().max()
