"""The ways to run a pipeline's denoisers: see `Runner`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from multimodal_gen.messages.request import Runner
from multimodal_gen.runtime.layers.lora import LoraRows
from multimodal_gen.runtime.models.captured.graph_cache import GraphCache
from multimodal_gen.runtime.models.compiled.blocks import CompiledBlocks, repeated_blocks
from multimodal_gen.runtime.models.denoiser import Denoiser, Static, Tensors


class Runners:
    """Runs each denoiser of a pipeline in the way that its evaluation asks for."""

    def __init__(self, graphs: GraphCache | None = None) -> None:
        self.graphs = graphs
        """Graphs of captured evaluations; None where there can't be any."""
        self.blocks: list[CompiledBlocks] = []
        """Of each denoiser that has some."""
        self.now: Runner = "eager"
        """That of the evaluation at hand. Nothing else is run by another than the eager one."""
        self.compiles = False
        """True: compiled evaluations make the graphs that they lack, and wait for them."""

    @property
    def captures(self) -> bool:
        """True for an evaluation that may be captured: shapes should be few."""
        return self.now == "captured"

    @contextmanager
    def using(self, runner: Runner) -> Iterator[None]:
        """Run the evaluation inside the context so."""
        self.now = runner
        try:
            yield
        finally:
            self.now = "eager"

    def of(
        self,
        module: nn.Module,
        eager: Denoiser,
        capture: Callable[[Denoiser], Denoiser] | None = None,
    ) -> Denoiser:
        """The denoiser that runs the module in all of these ways; `eager` is one of them, and
        `capture` makes the captured one of it."""
        blocks = repeated_blocks(module)
        if not blocks:
            return eager
        self.blocks.append(CompiledBlocks(blocks))
        compiled = CompiledDenoiser(self, eager, self.blocks[-1])
        captured = eager if capture is None else capture(eager)
        return ChosenDenoiser(self, {"eager": eager, "compiled": compiled, "captured": captured})


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


class CompiledDenoiser:
    """Runs a module with its blocks compiled, as far as their graphs are made."""

    def __init__(self, runners: Runners, denoiser: Denoiser, blocks: CompiledBlocks) -> None:
        self._runners = runners
        self._denoiser = denoiser
        self._blocks = blocks

    def __call__(
        self, tensors: Tensors, static: Static | None = None, lora: LoraRows | None = None
    ) -> Tensor:
        with self._blocks.made() if self._runners.compiles else self._blocks.used():
            return self._denoiser(tensors, static, lora)
