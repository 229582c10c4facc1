"""Graphs that are kept: those used last, within bounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from multimodal_gen.runtime.distributed.rank_context import RankContext
from multimodal_gen.runtime.models.captured.graphs import DeviceGraph, GraphBackend, graphs_of
from multimodal_gen.runtime.models.captured.inputs import EvaluationInputs

_MOST_BYTES = 2**29
_MOST_GRAPHS = 32
_MOST_MET = 256


@dataclass(frozen=True, eq=False)
class CapturedEvaluation:
    """A graph, and the inputs that it reads."""

    inputs: EvaluationInputs
    graph: DeviceGraph


class GraphCache:
    """Graphs of the denoisers of a pipeline by signature; those used last are kept."""

    def __init__(
        self,
        backend: GraphBackend,
        most_bytes: int = _MOST_BYTES,
        most_graphs: int = _MOST_GRAPHS,
    ) -> None:
        """`most_bytes` is the maximum size of all inputs together."""
        self.backend = backend
        self.failed = False
        """True once a capture has failed: then there is no other."""
        self._most_bytes = most_bytes
        self._most_graphs = most_graphs
        self._graphs: OrderedDict[Hashable, CapturedEvaluation] = OrderedDict()
        self._met: OrderedDict[Hashable, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._graphs)

    @classmethod
    def of(cls, context: RankContext) -> GraphCache | None:
        """Create it for a rank that has graphs and evaluates its rows alone: exchanges with other
        ranks are not captured, since all of them would have to do so at the same time."""
        alone = context.mesh.sequence.size == context.mesh.tensor.size == 1
        backend = graphs_of(context.device) if alone else None
        return None if backend is None else cls(backend)

    @property
    def captured(self) -> list[CapturedEvaluation]:
        """All graphs; those used last are at the end."""
        return [*self._graphs.values()]

    @property
    def size(self) -> int:
        """Bytes of the inputs of all graphs."""
        return sum(each.inputs.size for each in self._graphs.values())

    def holds(self, size: int) -> bool:
        """True if a graph with inputs of so many bytes can be kept."""
        return size <= self._most_bytes

    def find(self, signature: Hashable) -> CapturedEvaluation | None:
        """Return the graph for a signature, which becomes the last to be evicted."""
        found = self._graphs.get(signature)
        if found is not None:
            self._graphs.move_to_end(signature)
        return found

    def was_met(self, signature: Hashable) -> bool:
        """Note that a signature is met; return true from the second time on."""
        if signature in self._met:
            self._met.move_to_end(signature)
            return True
        if len(self._met) >= _MOST_MET:
            self._met.popitem(last=False)
        self._met[signature] = None
        return False

    def make_room(self, size: int) -> None:
        """Evict graphs until there is room for another one with inputs of so many bytes."""
        while self._graphs and (
            len(self._graphs) >= self._most_graphs or self.size + size > self._most_bytes
        ):
            self._graphs.popitem(last=False)

    def add(self, signature: Hashable, captured: CapturedEvaluation) -> None:
        self._graphs[signature] = captured

    def forget_lora(self, key: int) -> None:
        """Drop the graphs that read the tensors of a LoRA, which is about to be freed."""
        for signature, captured in [*self._graphs.items()]:
            if (lora := captured.inputs.lora) is not None and key in lora.groups:
                del self._graphs[signature]

    def forget(self) -> None:
        """Drop all graphs."""
        self._graphs.clear()

    def fail(self) -> None:
        """Drop all graphs, and capture no more."""
        self.failed = True
        self.forget()
