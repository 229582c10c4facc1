"""Digests of a checkpoint's content, to compare it with another host's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from multimodal_gen.checkpoints.files import inside, is_told
from multimodal_gen.checkpoints.header import read_header
from multimodal_gen.runtime.loader.checkpoint import ROOT_FILES, Checkpoint

_BLOCK_BYTES = 4 << 10
_READ = (".json", ".txt", ".model")
"""Suffixes of the files that are read besides weights."""


def content_digests(checkpoint: Checkpoint) -> dict[str, str]:
    """Digests by the names of components and of the files beside them. Equal copies have equal
    digests, wherever they lie and whenever they were made.

    Of weights, the header and a block of each tensor are read: that tells a fine-tune from its base
    without reading all of both. Raises InvalidCheckpoint and OSError.
    """
    beside = ((name, inside(checkpoint.folder, name)) for name in ROOT_FILES)
    digests = {name: _digest([path.read_bytes()]) for name, path in beside if path.is_file()}
    return digests | {name: _digest(_pieces(checkpoint, name)) for name in checkpoint.components}


def _digest(pieces: Iterable[bytes]) -> str:
    whole = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        whole.update(b"%d " % len(piece))
        whole.update(piece)
    return whole.hexdigest()


def _pieces(checkpoint: Checkpoint, name: str) -> Iterator[bytes]:
    """Parts of a component that count; a single file's name does not: it is the user's own."""
    folder = inside(checkpoint.folder, name)
    found = [each.name for each in folder.iterdir()] if folder.is_dir() else []
    for file in sorted(filter(is_told, found)):
        if file.endswith(_READ) and not file.endswith(".index.json"):
            yield file.encode()
            yield inside(checkpoint.folder, f"{name}/{file}").read_bytes()
    if name in checkpoint.files:
        yield from _of_weights(checkpoint.files[name].header.path)
        return
    for path in checkpoint.weight_paths(name):
        yield path.name.encode()
        yield from _of_weights(path)


def _of_weights(path: Path) -> Iterator[bytes]:
    """The header, and a block from the middle of each tensor."""
    tensors = sorted(read_header(path).tensors.values(), key=lambda tensor: tensor.start)
    with path.open("rb") as file:
        yield file.read(tensors[0].start if tensors else -1)
        for tensor in tensors:
            file.seek(tensor.start + max(0, tensor.size - _BLOCK_BYTES) // 2)
            yield file.read(min(tensor.size, _BLOCK_BYTES))
