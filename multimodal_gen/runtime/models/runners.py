"""The ways to run a pipeline's denoisers: see `Runner`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from torch import Tensor, nn

from multimodal_gen.messages.request import Runner
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.models.captured.graph_cache import GraphCache
from multimodal_gen.runtime.models.compiled.blocks import CompiledBlocks, repeated_blocks
from multimodal_gen.runtime.models.compiled.graph import BlockGraph
from multimodal_gen.runtime.models.compiled.recorder import GraphRecorder
from multimodal_gen.runtime.models.denoiser import Denoiser, Static, Tensors


class Runners:
    """Runs each denoiser of a pipeline in the way that its evaluation asks for."""

    def __init__(self, graphs: GraphCache | None = None) -> None:
        self.graphs = graphs
        """Graphs of captured evaluations; None where there can't be any."""
        self.blocks: dict[str, CompiledBlocks] = {}
        """By component, of denoisers that have some."""
        self.recorders: dict[str, GraphRecorder] = {}
        """By component."""
        self.records = False
        """True: the graphs that evaluations would need are noted."""
        self.evaluates = False
        self.now: Runner = "eager"
        """Runner of the evaluation at hand. Everything else is run eagerly."""
        self.compiles = False
        """True: compiled evaluations make the graphs that they lack, and wait for them."""

    @property
    def captures(self) -> bool:
        """True for an evaluation that may be captured: shapes should be few."""
        return self.now == "captured"

    def using(self, runner: Runner) -> AbstractContextManager[None]:
        """Run the evaluation inside the context so."""
        return _Use(self, runner)

    def of(
        self,
        name: str,
        module: nn.Module,
        eager: Denoiser,
        capture: Callable[[Denoiser], Denoiser] | None = None,
    ) -> Denoiser:
        """The denoiser that runs component `name` in all of these ways; `eager` is one of them, and
        `capture` makes the captured one of it."""
        blocks = repeated_blocks(module)
        if not blocks:
            return eager
        self.blocks[name] = CompiledBlocks(blocks)
        self.recorders[name] = recorder = GraphRecorder(name, blocks)
        compiled = CompiledDenoiser(self, eager, self.blocks[name], recorder)
        recorded = RecordedDenoiser(self, eager, recorder)
        ways: dict[Runner, Denoiser] = {
            "eager": recorded,
            "compiled": compiled,
            "captured": recorded if capture is None else capture(eager),
        }
        return ChosenDenoiser(self, ways)

    def take_graphs(self) -> list[BlockGraph]:
        """Graphs that were noted since."""
        return [graph for recorder in self.recorders.values() for graph in recorder.take()]

    def load(self, graph: BlockGraph) -> None:
        """Make a graph, which is quick if it is in the cache on disk."""
        blocks = self.blocks[graph.component]
        blocks.make(blocks.blocks[graph.block], graph.example)


class _Use:
    def __init__(self, runners: Runners, runner: Runner) -> None:
        self._runners = runners
        self._runner = runner

    def __enter__(self) -> None:
        self._runners.now, self._runners.evaluates = self._runner, True

    def __exit__(self, *_: object) -> None:
        self._runners.now, self._runners.evaluates = "eager", False


class ChosenDenoiser:
    """Runs a module in the way that the evaluation asks for, or operation by operation."""

    def __init__(self, runners: Runners, ways: Mapping[Runner, Denoiser]) -> None:
        self._runners = runners
        self._ways = ways

    def __call__(
        self, tensors: Tensors, static: Static | None = None, lora: LoraRows | None = None
    ) -> Tensor:
        run = self._ways.get(self._runners.now, self._ways["eager"])
        return run(tensors, static, lora)


class RecordedDenoiser:
    """Runs a module operation by operation, and notes which graphs would do the same."""

    def __init__(self, runners: Runners, denoiser: Denoiser, recorder: GraphRecorder) -> None:
        self._runners = runners
        self._denoiser = denoiser
        self._recorder = recorder

    def __call__(
        self, tensors: Tensors, static: Static | None = None, lora: LoraRows | None = None
    ) -> Tensor:
        if not (self._runners.records and self._runners.evaluates):
            return self._denoiser(tensors, static, lora)
        with self._recorder.watching(_kind(tensors, lora)):
            return self._denoiser(tensors, static, lora)


class CompiledDenoiser:
    """Runs a module with its blocks compiled, as far as their graphs are made."""

    def __init__(
        self,
        runners: Runners,
        denoiser: Denoiser,
        blocks: CompiledBlocks,
        recorder: GraphRecorder,
    ) -> None:
        self._runners = runners
        self._denoiser = denoiser
        self._recorded = RecordedDenoiser(runners, denoiser, recorder)
        self._blocks = blocks
        self._recorder = recorder

    def __call__(
        self, tensors: Tensors, static: Static | None = None, lora: LoraRows | None = None
    ) -> Tensor:
        if self._runners.records and not self._recorder.knows(_kind(tensors, lora)):
            return self._recorded(tensors, static, lora)
        with self._blocks.made() if self._runners.compiles else self._blocks.used():
            return self._denoiser(tensors, static, lora)


def _kind(tensors: Tensors, lora: LoraRows | None) -> tuple[object, ...]:
    """Equal for evaluations that need the same graphs."""
    given = (name for name, each in tensors.items() if each is not None)
    return (*sorted(given), lora is not None)
