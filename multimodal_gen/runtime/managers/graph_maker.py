"""Gets compiled graphs for a rank: another process compiles them, and the rank loads them between
two plans."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path

import torch

from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.messages.plan import RunnerReady
from multimodal_gen.messages.rank_args import RankArgs
from multimodal_gen.runtime.compiling import CompileArgs
from multimodal_gen.runtime.managers.compiler_process import compile_apart
from multimodal_gen.runtime.managers.rank_device import describe_device
from multimodal_gen.runtime.models.compiled.graph import BlockGraph
from multimodal_gen.runtime.models.compiled.kept_graphs import KeptGraphs
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

log = logging.getLogger(__name__)


class GraphMaker:
    """Used by the thread that works; `wake` has it call `advance`, between two plans."""

    def __init__(self, pipeline: ComposedPipeline, args: RankArgs) -> None:
        """Raises MultimodalGenError if there is no safe place for compiled code."""
        folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        device = describe_device(pipeline.context.device)
        self.kept = KeptGraphs(folder, f"{device}, {torch.get_num_threads()} threads")
        self.pipeline = pipeline
        self._args = args
        self._waits = False
        """True while graphs are compiled."""
        self._compiled: list[BlockGraph] = []
        self._refused = False
        self._told = False
        self.is_over = False

    @classmethod
    def of(cls, pipeline: ComposedPipeline, args: RankArgs) -> GraphMaker | None:
        """None where nothing is compiled; the log says why if that was asked for."""
        choice = args.engine.compile
        wanted = choice == "blocks" or (choice == "auto" and args.serves)
        if not wanted or os.environ.get("TORCHDYNAMO_DISABLE") == "1":
            return None
        try:
            _check(pipeline, choice == "auto")
            made = cls(pipeline, args)
        except MultimodalGenError as error:
            log.log(_level(args), "blocks are not compiled: %s", error)
            return None
        pipeline.runners.records = True
        return made

    def start(self, wake: Callable[[], None], report: Callable[[RunnerReady], None]) -> None:
        self._wake, self._report = wake, report

    def advance(self, *, in_use: bool = False) -> None:
        """Go on with what there is to do: at most one graph is loaded, and none while graphs are
        `in_use` by requests, whose evaluations are to be alike."""
        if self.is_over or self._waits:
            return
        if self._compiled:
            if not in_use:
                self._load(self._compiled.pop(0))
            return
        runners = self.pipeline.runners
        self._tell_refusal(each.refusal for each in runners.recorders.values())
        found = runners.take_graphs()
        if found:
            self._waits = True
            threading.Thread(target=self._compile, args=(found,), daemon=True).start()

    def _load(self, graph: BlockGraph) -> None:
        try:
            with torch.inference_mode():
                self.pipeline.runners.load(graph)
        except Exception as error:
            self._give_up(error)
            return
        if self._compiled:
            self._wake()
        elif not self._told:
            self._told = True
            log.info("compiled blocks are ready")
            self._report(RunnerReady(rank=self.pipeline.context.mesh.rank, runner="compiled"))

    def _compile(self, graphs: list[BlockGraph]) -> None:
        """Runs in a thread, and ends with `wake` whatever happens."""
        try:
            if not self.kept.has(graphs):
                compile_apart(self._compile_args(graphs))
                self.kept.add(graphs)
            import_module("torch._inductor.compile_fx")  # takes seconds, here and not between plans
            self._compiled = graphs
        except Exception as error:
            self._give_up(error)
        finally:
            self._waits = False
            self._wake()

    def _compile_args(self, graphs: Sequence[BlockGraph]) -> CompileArgs:
        return CompileArgs(
            model_folder=self._args.model_folder,
            model_file=self._args.model_file,
            component_files=self._args.component_files,
            device=str(self.pipeline.context.device),
            attention_backend=self._args.engine.attention_backend,
            threads=torch.get_num_threads(),
            graphs=tuple(graphs),
        )

    def _tell_refusal(self, refusals: Iterable[str]) -> None:
        reason = next(filter(None, refusals), "")
        if reason and not self._refused:
            self._refused = True
            log.log(_level(self._args), "some blocks are not compiled: %s", reason)

    def _give_up(self, error: Exception) -> None:
        self.is_over = True
        self.pipeline.runners.records = False
        reason = str(error).partition("\n")[0] or type(error).__name__
        log.warning("blocks are not compiled, and evaluations run as before: %s", reason)


def _level(args: RankArgs) -> int:
    """Level of reasons not to compile: a warning only where that was asked for."""
    return logging.WARNING if args.engine.compile == "blocks" else logging.INFO


def _check(pipeline: ComposedPipeline, only_if_faster: bool) -> None:
    """Raise MultimodalGenError for a pipeline whose blocks are not compiled."""
    if pipeline.native is None:
        raise MultimodalGenError("the denoiser is a module of a library")
    if pipeline.context.mesh.world_size > 1:
        raise MultimodalGenError("several ranks share an evaluation")
    if only_if_faster and pipeline.context.device.type == "cpu":
        raise MultimodalGenError("on CPUs evaluations are faster as they are")
