"""Gets compiled graphs for a rank: another process compiles them, and the rank loads them between
two plans."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import msgspec
import torch

from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.messages.plan import RunnerReady
from multimodal_gen.messages.rank_args import RankArgs
from multimodal_gen.runtime.compiling import CompileArgs
from multimodal_gen.runtime.managers.rank_device import describe_device
from multimodal_gen.runtime.models.compiled.graph import BlockGraph
from multimodal_gen.runtime.models.compiled.kept_graphs import KeptGraphs
from multimodal_gen.runtime.pipelines.composed_pipeline import ComposedPipeline

log = logging.getLogger(__name__)
COMPILER = "multimodal_gen.runtime.compiling"
_LONGEST_S = 1800.0


class GraphMaker:
    """Used by the thread that works; `wake` has it call `advance`, between two plans."""

    def __init__(self, pipeline: ComposedPipeline, args: RankArgs) -> None:
        """Raises MultimodalGenError if there is no safe place for compiled code."""
        folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        self.kept = KeptGraphs(folder, describe_device(pipeline.context.device))
        self._pipeline = pipeline
        self._args = args
        self._compiles = args.engine.compile == "blocks"
        self._child: subprocess.Popen[bytes] | None = None
        self._asked: list[BlockGraph] = []
        self._compiled: list[BlockGraph] = []
        self._told = False
        self.is_over = False

    @classmethod
    def of(cls, pipeline: ComposedPipeline, args: RankArgs) -> GraphMaker | None:
        """None where nothing is compiled."""
        runners, mesh = pipeline.runners, pipeline.context.mesh
        unwanted = args.engine.compile == "off" or os.environ.get("TORCHDYNAMO_DISABLE") == "1"
        if unwanted or pipeline.native is None or mesh.world_size > 1:
            return None
        try:
            made = cls(pipeline, args)
        except MultimodalGenError as error:
            log.warning("blocks are not compiled: %s", error)
            return None
        runners.records = True
        return made

    def start(self, wake: Callable[[], None], report: Callable[[RunnerReady], None]) -> None:
        self._wake, self._report = wake, report

    def advance(self) -> None:
        """Go on with what there is to do: at most one graph is loaded."""
        if self.is_over:
            return
        if self._compiled:
            self._load(self._compiled.pop(0))
            return
        if self._child is None and (found := self._pipeline.runners.take_graphs()):
            if self.kept.has(found):
                self._compiled = found
                self._wake()
            elif self._compiles:
                self._asked = found
                self._spawn()

    def _load(self, graph: BlockGraph) -> None:
        try:
            with torch.inference_mode():
                self._pipeline.runners.load(graph)
        except Exception as error:
            self._give_up(str(error).partition("\n")[0])
            return
        if self._compiled:
            self._wake()
        elif not self._told:
            self._told = True
            log.info("compiled blocks are ready")
            self._report(RunnerReady(rank=self._pipeline.context.mesh.rank, runner="compiled"))

    def _spawn(self) -> None:
        args = CompileArgs(
            model_folder=self._args.model_folder,
            model_file=self._args.model_file,
            component_files=self._args.component_files,
            device=str(self._pipeline.context.device),
            attention_backend=self._args.engine.attention_backend,
            graphs=tuple(self._asked),
        )
        encoded = msgspec.msgpack.encode(args)
        self._child = subprocess.Popen(
            [sys.executable, "-m", COMPILER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        threading.Thread(target=self._wait, args=(self._child, encoded), daemon=True).start()

    def _wait(self, child: subprocess.Popen[bytes], encoded: bytes) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(len(encoded).to_bytes(4, "big") + encoded)
            child.stdin.flush()  # It stays open: the child ends with this process.
            timer = threading.Timer(_LONGEST_S, child.kill)
            timer.start()
            import_module("torch._inductor.compile_fx")  # takes seconds, here and not between plans
            told = child.stdout.read().decode(errors="replace").strip()
            status = child.wait()
            timer.cancel()
        except OSError as error:
            told, status = str(error), 1
        if status:
            self._give_up(told.partition("\n")[0] or f"the compiler ended with status {status}")
        else:
            self.kept.add(self._asked)
            self._compiled = self._asked
        self._child = None
        self._wake()

    def _give_up(self, reason: str) -> None:
        self.is_over = True
        self._pipeline.runners.records = False
        log.warning("blocks are not compiled, and evaluations run as before: %s", reason)
