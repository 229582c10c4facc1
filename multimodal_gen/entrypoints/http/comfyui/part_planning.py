"""Starts the tasks of a prompt, unless their results are cached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multimodal_gen.entrypoints.http.comfyui.graph.graph import Graph, Node
from multimodal_gen.entrypoints.http.comfyui.graph.graph_translation import Sampling
from multimodal_gen.entrypoints.http.comfyui.prompts import Part
from multimodal_gen.entrypoints.http.comfyui.result_cache import ResultCache, ResultKey, key_of
from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.messages.pictures import Pixels
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.service import Service


class PartPlanner:
    """One part per sampler that has to run."""

    def __init__(
        self, graph: Graph, service: Service, model: str, cache: ResultCache, owner: Owner
    ) -> None:
        self.cached: dict[str, Any] = {}
        """Results of output nodes that need not run, by node id."""
        self._graph = graph
        self._service = service
        self._model = model
        self._cache = cache
        self._owner = owner
        self._passed: set[str] = set()

    def start(
        self,
        samplings: Sequence[Sampling],
        loaded: Sequence[tuple[Pixels, bytes]],
        previews: bool,
    ) -> list[Part]:
        """`loaded` are the input images of each sampling, with their digest. Raises the errors of
        its requests."""
        parts: list[Part] = []
        try:
            for sampling, (pictures, digest) in zip(samplings, loaded, strict=True):
                keys = self._keys(sampling, digest)
                found = self._cache.find(self._owner, keys)
                if found is None:
                    parts.append(self._part(sampling, pictures, keys, previews))
                else:
                    self.cached |= found
        except MultimodalGenError:
            for part in parts:
                part.task.cancel()
            raise
        return parts

    @property
    def cached_nodes(self) -> list[str]:
        """Ids of nodes that only cached results depend on."""
        outputs = [self._graph.nodes[node] for node in self.cached]
        return [node.id for node in self._unpassed(outputs)]

    def _part(
        self,
        sampling: Sampling,
        pictures: Pixels,
        keys: dict[str, ResultKey | None],
        previews: bool,
    ) -> Part:
        task = self._service.start(
            sampling.params, pictures, owner=self._owner, model=self._model, previews=previews
        )
        outputs = [self._graph.nodes[output] for output in sampling.outputs]
        before = self._unpassed([sampling.sampler])
        return Part(sampling, task, before, self._unpassed(outputs), keys)

    def _keys(self, sampling: Sampling, digest: bytes) -> dict[str, ResultKey | None]:
        return {
            output: key_of(
                self._owner, self._model, self._graph.nodes[output], saved, sampling.params, digest
            )
            for output, saved in sampling.outputs.items()
        }

    def _unpassed(self, targets: Sequence[Node]) -> list[Node]:
        """`targets` and the nodes they depend on, sources first, without those before."""
        found = [node for target in targets for node in self._graph.order(target)[0]]
        new = {node.id: node for node in found if node.id not in self._passed}
        self._passed.update(new)
        return list(new.values())
