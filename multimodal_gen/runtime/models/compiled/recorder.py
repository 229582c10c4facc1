"""Notes with which arguments an evaluation calls its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from multimodal_gen.runtime.models.compiled.blocks import example_of, in_place
from multimodal_gen.runtime.models.compiled.graph import BlockGraph, geometry_of


class GraphRecorder:
    """Finds the graphs of one denoiser. Evaluations with tensors of other names may need others."""

    def __init__(self, component: str, blocks: Sequence[nn.Module]) -> None:
        self._component = component
        self._blocks = blocks
        self._kinds: set[str] = set()
        self._evaluations: set[tuple[object, ...]] = set()
        self.found: list[BlockGraph] = []
        """Not taken yet."""
        self.refusal = ""
        """Why some of its blocks can't be compiled."""

    @contextmanager
    def watching(self, evaluation: tuple[object, ...]) -> Iterator[None]:
        """Note the calls of the evaluation inside the context, unless one like it was seen."""
        if evaluation in self._evaluations:
            yield
            return
        self._evaluations.add(evaluation)
        calls = [partial(self._note, number, each) for number, each in enumerate(self._blocks)]
        with in_place(self._blocks, calls):
            yield

    def knows(self, evaluation: tuple[object, ...]) -> bool:
        """True if one like it was seen."""
        return evaluation in self._evaluations

    def take(self) -> list[BlockGraph]:
        """The graphs that were found since."""
        found, self.found = self.found, []
        return found

    def _note(self, number: int, block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        try:
            graph = BlockGraph(
                self._component, number, geometry_of(block), example_of(block, args, kwargs)
            )
            kind = f"{type(block).__name__} {graph.key('')}"
            if kind not in self._kinds:
                self._kinds.add(kind)
                self.found.append(graph)
        except TypeError as error:
            self.refusal = self.refusal or str(error)
        return type(block).forward(block, *args, **kwargs)
