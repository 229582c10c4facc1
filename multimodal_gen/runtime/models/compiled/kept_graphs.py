"""Knows which graphs are in the folder of compiled code."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.runtime.models.compiled.graph import BlockGraph


class KeptGraphs:
    """Marks in a folder of the user's own. torch reads what is there with pickle, so it must not be
    one that anyone else can write to."""

    def __init__(self, folder: Path, device: str) -> None:
        """Raises MultimodalGenError if others could write there."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in (folder, folder.parent):
            about = each.stat()
            if about.st_uid != os.getuid() or about.st_mode & 0o022:
                raise MultimodalGenError(f"{each} is not the user's own, or others can write to it")
        self._folder = folder / "graphs"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._device = device

    def has(self, graphs: Iterable[BlockGraph]) -> bool:
        return all(self._mark(graph).exists() for graph in graphs)

    def add(self, graphs: Iterable[BlockGraph]) -> None:
        for graph in graphs:
            self._mark(graph).touch(mode=0o600)

    def _mark(self, graph: BlockGraph) -> Path:
        return self._folder / graph.key(self._device)
