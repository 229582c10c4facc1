"""Results of output nodes, for graphs that are sent again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.entrypoints.http.comfyui.files import Files, Place
from multimodal_gen.entrypoints.http.comfyui.graph.graph import Node
from multimodal_gen.entrypoints.http.comfyui.graph.values import SavedResult
from multimodal_gen.messages.pictures import Pixels
from multimodal_gen.serving.owner import Owner

MAX_RESULTS = 10_000
FILE_LISTS = ("images", "gifs")
"""Names of lists of files in a result."""
_UNKEPT = "SaveImageWebsocket"
"""Its images are sent, and not stored."""


class ResultKey(NamedTuple):
    """All that determines the files of an output node."""

    owner: str
    model: str
    params: SamplingParams
    pictures: bytes
    """Digest of the input images."""
    kind: str
    prefix: str
    video: object


class ResultCache:
    """Newest results. Runs on one event loop."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._results: OrderedDict[ResultKey, dict[str, Any]] = OrderedDict()

    def find(self, owner: Owner, keys: Mapping[str, ResultKey | None]) -> dict[str, Any] | None:
        """Results of all these output nodes, if the files of all of them still exist."""
        found = {}
        for node, key in keys.items():
            result = None if key is None else self._results.get(key)
            if result is None or not self._exists(owner, result):
                return None
            found[node] = result
        return found

    def keep(self, key: ResultKey | None, result: dict[str, Any]) -> None:
        if key is None:
            return
        self._results[key] = result
        self._results.move_to_end(key)
        if len(self._results) > MAX_RESULTS:
            self._results.popitem(last=False)

    def forget(self, owner: Owner) -> None:
        for key in [key for key in self._results if key.owner == owner.name]:
            del self._results[key]

    def _exists(self, owner: Owner, result: dict[str, Any]) -> bool:
        places = [place for key in FILE_LISTS for place in result.get(key, ())]
        return all(
            self._files.exists(owner, Place(place["type"], place["subfolder"], place["filename"]))
            for place in places
        )


def key_of(
    owner: Owner,
    model: str,
    node: Node,
    saved: SavedResult,
    params: SamplingParams,
    pictures: bytes,
) -> ResultKey | None:
    """Key of an output node's result; None if it is not kept."""
    if node.kind.name == _UNKEPT:
        return None
    prefix = str(node.inputs.get("filename_prefix"))
    return ResultKey(owner.name, model, params, pictures, node.kind.name, prefix, saved.video)


def digest_of(pictures: Pixels) -> bytes:
    """Slow for large images."""
    digest = hashlib.sha256()
    for name, pixels in pictures.items():
        digest.update(f"{name} {pixels.shape} ".encode())
        digest.update(pixels.data)
    return digest.digest()
