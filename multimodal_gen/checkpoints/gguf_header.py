"""Reads the header of a GGUF file: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.

The gguf package's own reader trusts the counts in a file; this one never reads past the end.
"""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from multimodal_gen.checkpoints.tensor_info import Header, TensorInfo
from multimodal_gen.errors import InvalidCheckpoint

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_HEADER_BYTES = 32 << 20
_MAX_STRING_BYTES = 1 << 20
_MAX_DIMS = 8
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_KEPT_ITEMS = 16
"""Maximum array length kept from the metadata; longer ones are vocabularies, which are not
needed."""
_SHAPE_OF = "comfy.gguf.orig_shape."
"""Metadata key prefix: ComfyUI's converter flattens tensors whose rows don't split into blocks, and
stores their shape under it."""


class _Cursor:
    """Reads forward, never past the end of the file or the maximum header size."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file = file
        self._name = name
        self._limit = min(size, _MAX_HEADER_BYTES)
        self.at = 0

    def take(self, count: int) -> bytes:
        self._check(count)
        return self._file.read(count)

    def skip(self, count: int) -> None:
        self._check(count)
        self._file.seek(self.at)

    def number(self, kind: str) -> Any:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0]

    def string(self) -> str:
        length = self.number("Q")
        if length > _MAX_STRING_BYTES:
            raise InvalidCheckpoint(
                f"{self._name}: damaged: a string of {length} bytes in its header"
            )
        return self.take(length).decode("utf-8", "replace")

    def _check(self, count: int) -> None:
        if self.at + count > self._limit:
            raise InvalidCheckpoint(f"{self._name}: damaged: the file ends inside its own header")
        self.at += count


def read_gguf(path: Path, name: str) -> Header:
    """Read the header of a file that starts with `MAGIC`. Raises InvalidCheckpoint."""
    size = path.stat().st_size
    with path.open("rb") as file:
        cursor = _Cursor(file, size, name)
        cursor.take(len(MAGIC))
        version = cursor.number("I")
        if version not in _VERSIONS:
            raise InvalidCheckpoint(f"{name}: GGUF version {version} is not supported; 2 and 3 are")
        num_tensors, num_values = cursor.number("Q"), cursor.number("Q")
        metadata = {}
        for _ in range(num_values):
            key = cursor.string()
            metadata[key] = _value(cursor, cursor.number("I"), name)
        entries = [_entry(cursor, name) for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 8 or alignment % 8:
        raise InvalidCheckpoint(f"{name}: damaged: general.alignment={alignment!r:.40}")
    base = -(-cursor.at // alignment) * alignment
    tensors = {}
    for key, shape, kind, offset in entries:
        if key in tensors or offset % alignment:
            raise InvalidCheckpoint(f"{name}: damaged: {key:.100} is duplicated or misaligned")
        info = _checked(key, shape, kind, base + offset, size, name)
        tensors[key] = replace(info, shape=_own_shape(shape, metadata.get(_SHAPE_OF + key)))
    texts = {key: value for key, value in metadata.items() if isinstance(value, str)}
    return Header(path, "gguf", tensors, texts)


def _value(cursor: _Cursor, kind: int, name: str) -> Any:
    if kind == _STRING:
        return cursor.string()
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind])
    if kind != _ARRAY:
        raise InvalidCheckpoint(f"{name}: damaged: metadata of type {kind}")
    item, count = cursor.number("I"), cursor.number("Q")
    if count <= _KEPT_ITEMS and item != _ARRAY:
        return [_value(cursor, item, name) for _ in range(count)]
    if item in _SCALARS:
        cursor.skip(count * struct.calcsize(f"<{_SCALARS[item]}"))
    elif item == _STRING:
        for _ in range(count):
            cursor.skip(cursor.number("Q"))
    else:
        raise InvalidCheckpoint(f"{name}: damaged: metadata of type {item} in an array")
    return None


def _entry(cursor: _Cursor, name: str) -> tuple[str, tuple[int, ...], int, int]:
    """Read a tensor entry: name, shape (slowest dimension first, as in torch), type, offset."""
    key = cursor.string()
    dims = cursor.number("I")
    if dims > _MAX_DIMS:
        raise InvalidCheckpoint(f"{name}: damaged: {key:.100} has {dims} dimensions")
    shape = tuple(reversed([cursor.number("Q") for _ in range(dims)]))
    return key, shape, cursor.number("I"), cursor.number("Q")


def _own_shape(shape: tuple[int, ...], noted: Any) -> tuple[int, ...]:
    if not isinstance(noted, list) or not all(isinstance(n, int) and n > 0 for n in noted):
        return shape
    return tuple(noted) if math.prod(noted) == math.prod(shape) else shape


def _checked(
    key: str, shape: tuple[int, ...], kind: int, start: int, size: int, name: str
) -> TensorInfo:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType  # brings numpy

    try:
        quantised = GGMLQuantizationType(kind)
    except ValueError as error:
        raise InvalidCheckpoint(f"{name}: {key:.100}: type {kind} is not supported") from error
    block, block_bytes = GGML_QUANT_SIZES[quantised]
    if (shape or (1,))[-1] % block:
        raise InvalidCheckpoint(
            f"{name}: damaged: {key:.100} {list(shape)}: its rows don't split into the blocks of "
            f"{block} numbers of {quantised.name}"
        )
    length = math.prod(shape) // block * block_bytes
    if start + length > size:
        raise InvalidCheckpoint(
            f"{name}: damaged: ends after {size} bytes, {key:.100} would end at {start + length}: "
            "is the download or copy incomplete?"
        )
    return TensorInfo(quantised.name, shape, start, length)
