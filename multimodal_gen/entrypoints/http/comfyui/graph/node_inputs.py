"""Inputs of one node, read by its meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from multimodal_gen.entrypoints.http.comfyui.errors import InvalidInput, meaningless
from multimodal_gen.entrypoints.http.comfyui.graph.graph import Graph, Node
from multimodal_gen.entrypoints.http.comfyui.graph.values import (
    Given,
    ImageList,
    LoadedImage,
    NodeValue,
    SizeOf,
)

V = TypeVar("V", bound=NodeValue)


class NodeInputs:
    """Reads inputs, and records which were read."""

    def __init__(self, graph: Graph, node: Node, results: Mapping[str, tuple[object, ...]]) -> None:
        """`results` holds the values of the outputs of all nodes that it is linked to."""
        self.node = node
        self.read: set[str] = set()
        self.ignored: set[str] = set()
        """Values that have no effect, even if they are defaults."""
        self.warnings: list[str] = []
        """What the node as a whole does not do."""
        self._graph = graph
        self._results = results

    def has(self, name: str) -> bool:
        return name in self.node.inputs

    def value(self, name: str) -> Any:
        """Value of an input, in its type; an optional one has its default. Raises InvalidInput."""
        return self.given(name).value

    def peek(self, name: str) -> Any:
        """Value of an input that may turn out to have no effect."""
        return self._given(name).value

    def given(self, name: str) -> Given[Any]:
        """Value of an input, with its origin."""
        self.read.add(name)
        return self._given(name)

    def _given(self, name: str) -> Given[Any]:
        spec = self.node.kind.inputs[name]
        if spec.optional and not self.has(name):
            return Given(spec.default, self.node.id, name)
        if not self._graph.is_linked(self.node, name):
            return Given(self._graph.value(self.node, name), self.node.id, name)
        found = self._source(name)
        if not isinstance(found, Given):
            raise self.refused(name, "the size of an image can only be that of a latent")
        return Given(self._graph.checked(self.node, name, found.value), self.node.id, name)

    def side(self, name: str) -> Given[int] | SizeOf:
        """Width or height, which may be that of an image."""
        linked = self._graph.is_linked(self.node, name)
        if linked and isinstance(found := self._source(name), SizeOf):
            self.read.add(name)
            return found
        return self.given(name)

    def anything(self, name: str) -> object:
        """Value of the output that an input is linked to, whatever it is."""
        self.read.add(name)
        return self._source(name)

    def linked(self, name: str, kind: type[V]) -> V:
        """Value of the output that an input is linked to. Raises InvalidInput."""
        self.read.add(name)
        found = self._source(name)
        if not isinstance(found, kind):
            what = getattr(found, "what", "nothing")
            raise self.refused(name, f"must be {kind.what}, not {what}")
        return found

    def optional(self, name: str, kind: type[V]) -> V | None:
        return self.linked(name, kind) if self.has(name) else None

    def image(self, name: str = "image") -> LoadedImage:
        return self.linked(name, LoadedImage)

    def images(self, name: str) -> tuple[LoadedImage, ...]:
        """One image, or those of a batch; none if an optional input is not linked."""
        if not self.has(name):
            return ()
        found = self.anything(name)
        return found.images if isinstance(found, ImageList) else (self.image(name),)

    def refused(self, name: str, why: str) -> InvalidInput:
        """Error for an input whose meaning this server can't realise."""
        return meaningless(self.node.id, name, why)

    def _source(self, name: str) -> object:
        source, slot = self._graph.source(self.node, name)
        return self._results[source.id][slot]
