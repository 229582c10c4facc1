"""Runners of a request's evaluations, and graphs that are made meanwhile."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import msgspec
import pytest
import torch
import torch._dynamo
from engineless import load, start
from places import HELPERS, python_path
from policy_simulation import cost_model, prepared_of, request

from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.messages.plan import Phase, RunnerReady, Work
from multimodal_gen.messages.rank_args import RankArgs
from multimodal_gen.runtime.compiling import CompileArgs
from multimodal_gen.runtime.distributed.mesh import Mesh
from multimodal_gen.runtime.layers.products import dense
from multimodal_gen.runtime.managers import compiler_process
from multimodal_gen.runtime.managers.gpu_worker import GPUWorker
from multimodal_gen.runtime.managers.graph_maker import GraphMaker
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline
from multimodal_gen.scheduling.policy import Policy

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")
"""A warning of torch's compiler when it is imported."""


PACKED = object.__new__(dense.PackedWeight)
"""As of a layer that is used no more."""


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


def test_progress_names_the_runner_once_a_request_is_begun() -> None:
    decided = Decided()
    decided.policy.use("compiled")
    decided.policy.submit(request("a"), 0.0)
    assert decided.policy.progress("a", 0.0).runner is None
    decided.work(Phase.DENOISE)
    assert decided.policy.progress("a", decided.now).runner == "compiled"


def test_a_request_that_was_begun_elsewhere_is_run_as_it_was_there() -> None:
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
    """Let the maker do what it has to, until it reports a runner or has given up; gives what it
    reports."""
    woken: SimpleQueue[None] = SimpleQueue()
    told: list[RunnerReady] = []
    maker.start(lambda: woken.put(None), told.append)
    maker.advance()
    while not told and not maker.is_over:
        woken.get(timeout=seconds)
        maker.advance()
    return told


@pytest.fixture
def maker(cache: Path, bundled_model: Path) -> GraphMaker:
    """Of an engine that has met evaluations without graphs."""
    pipeline = load(bundled_model)
    made = GraphMaker.of(pipeline, _args(bundled_model))
    assert made is not None
    for blocks in pipeline.runners.blocks.values():
        blocks.backend = "eager"
    _evaluate(pipeline)
    return made


def _let_compiler_be(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler_process, "COMMAND", (sys.executable, "-S", "-c", code))


_FAULTS = {
    "fails": ("raise SystemExit(print('no compiler') or 4)", "status 4: 'no compiler'"),
    "is killed": ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
    "writes nonsense": (
        "print('\\udcff compiled', file=open(1, 'w', errors='replace'))",
        "status 0",
    ),
    "says nothing": ("", "status 0: ''"),
    "leaves a process that holds its output": (
        "import subprocess, sys; subprocess.Popen(['sleep', '600']); sys.exit(3)",
        "status 3",
    ),
}


@pytest.mark.parametrize("fault", _FAULTS)
def test_a_compiler_that_fails_is_told_once_with_its_reason(
    fault: str,
    maker: GraphMaker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    code, reason = _FAULTS[fault]
    _let_compiler_be(code, monkeypatch)
    assert _advance(maker) == []
    _evaluate(maker.pipeline)
    maker.advance()
    (told,) = caplog.messages
    assert told.startswith("blocks are not compiled, and evaluations run as before: ")
    assert re.search(reason, told)


def test_a_compiler_that_does_not_end_is_ended(
    maker: GraphMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _let_compiler_be("import time; time.sleep(600)", monkeypatch)
    monkeypatch.setattr(compiler_process, "LONGEST_S", 0.1)
    assert _advance(maker) == []
    assert "SIGKILL" in caplog.text


def test_arguments_that_a_compiler_does_not_read_block_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _let_compiler_be("import sys; print('full'); sys.exit(2)", monkeypatch)
    args = CompileArgs(
        model_folder="a" * (1 << 20),
        model_file=None,
        component_files={},
        device="cpu",
        attention_backend="auto",
        threads=1,
        graphs=(),
    )
    with pytest.raises(MultimodalGenError, match="status 2: 'full'"):
        compiler_process.compile_apart(args)


def test_an_engine_that_ends_does_not_wait_for_the_compiler(
    maker: GraphMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(pipe := tmp_path / "pid")
    code = f"import os, time; open({str(pipe)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    _let_compiler_be(code, monkeypatch)
    before, woken = {*threading.enumerate()}, SimpleQueue[None]()
    maker.start(lambda: woken.put(None), lambda ready: None)
    maker.advance()
    child = int(pipe.read_text())
    own = {*threading.enumerate()} - before
    assert own
    assert all(each.daemon for each in own)
    maker.advance()  # It has nothing to do meanwhile.
    os.kill(child, signal.SIGKILL)
    woken.get(timeout=60)
    assert maker.is_over


def test_graphs_are_not_loaded_while_requests_use_others(maker: GraphMaker) -> None:
    recorders = maker.pipeline.runners.recorders.values()
    maker.kept.add(graph for each in recorders for graph in each.found)
    woken, told = SimpleQueue[None](), list[RunnerReady]()
    maker.start(lambda: woken.put(None), told.append)
    maker.advance()
    woken.get(timeout=60)
    for _ in range(3):
        maker.advance(in_use=True)
    assert not told
    while not told and not maker.is_over:
        maker.advance()
    assert told


def test_requests_count_as_users_of_graphs_until_they_are_dropped(bundled_model: Path) -> None:
    worker = GPUWorker(pipeline := load(bundled_model))
    state = worker.states["a"] = start(pipeline, SamplingParams(prompt="a", num_inference_steps=2))
    assert not worker.uses_compiled
    state.runner = "compiled"
    assert worker.uses_compiled


@pytest.mark.parametrize(("choice", "level"), [("auto", logging.INFO), ("blocks", logging.WARNING)])
def test_the_log_says_why_several_ranks_do_not_compile(
    choice: str,
    level: int,
    cache: Path,
    bundled_model: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    pipeline = load(bundled_model)
    pipeline.context = replace(pipeline.context, mesh=Mesh(world_size=2))
    args = msgspec.structs.replace(_args(bundled_model, choice), serves=True)
    assert GraphMaker.of(pipeline, args) is None
    (told,) = caplog.records
    assert (told.levelno, "several ranks" in told.message) == (level, True)


def test_a_folder_that_others_can_write_to_is_not_used(
    cache: Path, bundled_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.mkdir(mode=0o700)
    cache.chmod(0o777)
    assert GraphMaker.of(load(bundled_model), _args(bundled_model)) is None
    assert "others can write to it" in caplog.text


def test_on_a_cpu_blocks_are_compiled_only_if_that_is_asked_for(
    cache: Path, bundled_model: Path
) -> None:
    pipeline, auto = load(bundled_model), _args(bundled_model, "auto")
    assert GraphMaker.of(pipeline, auto) is None
    assert GraphMaker.of(pipeline, msgspec.structs.replace(auto, serves=True)) is None
    assert GraphMaker.of(pipeline, _args(bundled_model, "blocks")) is not None


@pytest.mark.slow
def test_blocks_are_compiled_in_a_process_of_their_own_and_loaded_from_its_cache(
    tmp_path: Path, bundled_model: Path
) -> None:
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")}
    environment["PYTHONPATH"] = python_path()
    del environment["TORCHDYNAMO_DISABLE"]
    script = HELPERS / "compiled_by_another.py"
    ended = subprocess.run(
        [sys.executable, str(script), str(bundled_model)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    seen = json.loads(ended.stdout)
    assert (seen["hits"], seen["misses"]) == (2, 0)
    assert 0 < seen["difference"] <= 1e-5
