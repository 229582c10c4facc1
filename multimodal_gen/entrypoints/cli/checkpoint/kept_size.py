"""Memory that a component takes once it is loaded, estimated from the headers of its files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from multimodal_gen.checkpoints.tensor_info import MANY_NUMBERS, TensorInfo
from multimodal_gen.configs.families.components import ComponentSpec

_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes of numbers that are cast; matrices of other types are kept as they are stored."""
_LARGEST, _WORTH_IT = 1 / 16, 1 / 256
"""Share of a module that a block may have before its own blocks are looked for, and must have."""

_Tree = dict[str, Any]
"""Bytes by name, or a tree of them."""


class KeptSize(NamedTuple):
    """Bytes of a component in memory."""

    own: int
    """Computed when it is loaded."""
    mapped: int
    """In pages of its file, on a CPU."""


@dataclass(frozen=True)
class KeptWeights:
    """A component's tensors as a device keeps them."""

    tensors: Mapping[str, TensorInfo]
    width: int
    """Bytes of the numbers that the device computes with."""
    is_cpu: bool
    is_native: bool = False
    """True for a transformer of this project, whose blocks are not split further."""
    resident: tuple[str, ...] = ()
    """See `ComponentSpec`."""

    @property
    def parameters(self) -> int:
        return sum(info.parameters for info in self.tensors.values())

    @property
    def size(self) -> KeptSize:
        whole = mapped = 0
        for info in self.tensors.values():
            size = self._size(info)
            whole += size
            mapped += size if self.is_cpu and size == info.size else 0
        return KeptSize(whole - mapped, mapped)

    @property
    def blocks(self) -> tuple[int, ...]:
        """Bytes of each block that can be streamed, in the order of the names; none if it has no
        repeated ones."""
        tree: _Tree = {}
        for name, info in self.tensors.items():
            *path, last = name.split(".")
            if path and path[0] in self.resident:
                continue
            node = tree
            for part in path:
                node = node.setdefault(part, {})
            node[last] = self._size(info)
        found = tuple(_elements(tree, _total(tree), nested=not self.is_native))
        return found if len(found) > 1 else ()

    def _size(self, info: TensorInfo) -> int:
        stored = _WIDTHS.get(info.dtype)
        if stored is None:  # Kernels of convolutions are read as numbers.
            return info.size if len(info.shape) < 3 else info.parameters * self.width
        narrow = self.is_cpu and stored < self.width and self.parameters >= MANY_NUMBERS
        return info.parameters * (stored if narrow and len(info.shape) == 2 else self.width)


def used(tensors: Mapping[str, TensorInfo], spec: ComponentSpec) -> dict[str, TensorInfo]:
    """Leave out the tensors of layers that nothing uses; old files call them by shorter names."""
    names = {*spec.idle, *(layer.removeprefix("model.") for layer in spec.idle)}
    idle = tuple(f"{name}." for name in names)
    kept = {name: info for name, info in tensors.items() if not name.startswith(idle)}
    if spec.depth is None:
        return kept
    layers = {name: re.search(r"(?:^|\.)(?:layers|blk)\.(\d+)\.", name) for name in kept}
    return {
        name: info
        for name, info in kept.items()
        if (layer := layers[name]) is None or int(layer[1]) < spec.depth
    }


def _elements(node: _Tree, whole: int, *, nested: bool) -> Iterator[int]:
    for child in node.values():
        if not isinstance(child, dict):
            continue
        if not all(name.isdigit() for name in child):
            if nested:
                yield from _elements(child, whole, nested=True)
            continue
        for element in sorted(child, key=int):
            size = _total(child[element])
            large = nested and size > _LARGEST * whole and isinstance(child[element], dict)
            if inner := [*_elements(child[element], whole, nested=True)] if large else []:
                yield from inner
            elif size > _WORTH_IT * whole:
                yield size


def _total(node: Any) -> int:
    return sum(map(_total, node.values())) if isinstance(node, dict) else int(node)
