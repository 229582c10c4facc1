"""Translates a graph into the parameters of one request per sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.http.comfyui.errors import InvalidInput, meaningless, shown
from multimodal_gen.entrypoints.http.comfyui.graph.graph import Graph, Node
from multimodal_gen.entrypoints.http.comfyui.graph.idle_inputs import idle_inputs
from multimodal_gen.entrypoints.http.comfyui.graph.node_inputs import NodeInputs
from multimodal_gen.entrypoints.http.comfyui.graph.request_parameters import RequestParameters
from multimodal_gen.entrypoints.http.comfyui.graph.values import (
    Given,
    LoadedImage,
    LoadedMask,
    SampledLatent,
    SavedResult,
)
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.request_warning import RequestWarning


@dataclass
class Sampling:
    """One sampler, with its parameters, input files and output nodes."""

    sampler: Node
    params: SamplingParams
    pictures: Mapping[str, LoadedImage]
    """Input images by their names in a request."""
    mask: LoadedMask | None
    origins: Mapping[str, tuple[str, str]]
    """Node id and input name that each parameter comes from."""
    sized_by: str
    """Name of the input image whose size the output has; empty if it has none's."""
    warnings: list[RequestWarning]
    """What of the graph has no effect, or another than asked for."""
    outputs: dict[str, SavedResult] = field(default_factory=dict)
    """By node id."""

    def blamed(self, error: InvalidRequest) -> InvalidInput:
        """Convert an error of a parameter to one of the input that it comes from."""
        named = error.field or ""
        node, name = self.origins.get(named, (self.sampler.id, "model"))
        return meaningless(node, name, error.message)

    def located(self, warning: RequestWarning) -> RequestWarning:
        """Convert a warning about a parameter to one about the input that it comes from."""
        place = self.origins.get(warning.field or "")
        if place is None:
            return warning
        node, name = place
        found = warning.about(name)
        return RequestWarning(found.code, name, f"node {shown(node)}: {found.text}")


class GraphTranslator:
    """Computes the values of a graph's nodes. Raises InvalidInput for graphs that this server can't
    run."""

    def __init__(
        self,
        graph: Graph,
        model: ModelInfo,
        loras: Sequence[str] = (),
        controls: Sequence[str] = (),
    ) -> None:
        self._graph = graph
        self._model = model
        self._loras = loras
        self._controls = controls
        self._results: dict[str, tuple[object, ...]] = {}
        self._inputs: dict[str, NodeInputs] = {}
        self._warned: set[str] = set()

    def result_of(self, output: Node) -> SavedResult:
        """Return the result that an output node saves; all its inputs are valid."""
        for node in self._graph.order(output)[0]:
            if node.id not in self._results:
                inputs = NodeInputs(self._graph, node, self._results)
                self._results[node.id] = node.kind.meaning(inputs)
                self._inputs[node.id] = inputs
        (saved,) = self._results[output.id]
        assert isinstance(saved, SavedResult)
        return saved

    def translate(self, sampled: SampledLatent) -> Sampling:
        """Parameters of one sampler's request."""
        sampler = self._graph.nodes[sampled.node]
        found = RequestParameters.of(sampled, self._model, self._loras, self._controls)
        try:
            params = SamplingParams(**found.values)
        except InvalidRequest as error:
            node, name = found.origins.get(error.field or "", (sampler.id, "model"))
            raise meaningless(node, name, error.message) from error
        return Sampling(
            sampler,
            params,
            found.pictures,
            found.mask,
            found.origins,
            found.sized_by,
            [self._warning(*each) for each in found.warnings],
        )

    def idle(self, output: Node) -> list[RequestWarning]:
        """Warnings for inputs without an effect, of nodes that an output depends on; of each node
        once."""
        nodes = [node for node in self._graph.order(output)[0] if node.id not in self._warned]
        self._warned.update(node.id for node in nodes)
        return [warning for node in nodes for warning in idle_inputs(self._inputs[node.id])]

    def _warning(self, code: str, given: Given[Any], what: str) -> RequestWarning:
        kind = self._graph.nodes[given.node].kind.name
        text = f"{kind} {shown(given.node)}: {given.name}={shown(given.value)} {what}"
        return RequestWarning(code, given.name, text)
