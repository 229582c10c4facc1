"""Reads the header of a safetensors file: https://github.com/huggingface/safetensors#format."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from multimodal_gen.checkpoints.tensor_info import Header, TensorInfo
from multimodal_gen.errors import InvalidCheckpoint

MAX_HEADER_BYTES = 100_000_000  # limit set by the format
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


class _Entry(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def read_safetensors(path: Path, name: str) -> Header:
    """Read the header of a file whose first bytes were checked. Raises InvalidCheckpoint."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        content = file.read(min(length, MAX_HEADER_BYTES))
    try:
        raw = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        metadata = raw.pop("__metadata__", None)
        known = {} if metadata is None else msgspec.json.decode(metadata, type=dict[str, str])
        entries = {key: msgspec.json.decode(value, type=_Entry) for key, value in raw.items()}
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidCheckpoint(f"{name}: damaged: the header is not valid: {error}") from error
    tensors = {key: _checked(key, entry, 8 + length, size, name) for key, entry in entries.items()}
    return Header(path, "safetensors", tensors, known)


def _checked(key: str, entry: _Entry, base: int, size: int, name: str) -> TensorInfo:
    begin, end = entry.data_offsets
    bits = _BITS.get(entry.dtype)
    if bits is None:
        raise InvalidCheckpoint(f"{name}: {key:.100}: dtype={entry.dtype!r:.40} is not supported")
    if min(entry.shape, default=0) < 0 or len(entry.shape) > 16:
        raise InvalidCheckpoint(f"{name}: {key:.100}: shape={entry.shape!s:.100} is not valid")
    if not 0 <= begin <= end or (end - begin) * 8 != math.prod(entry.shape) * bits:
        raise InvalidCheckpoint(
            f"{name}: damaged: {key:.100} {entry.dtype} {entry.shape} does not have {end - begin} "
            "bytes"
        )
    if base + end > size:
        raise InvalidCheckpoint(
            f"{name}: damaged: ends after {size} bytes, {key:.100} would end at {base + end}: "
            "is the download or copy incomplete?"
        )
    return TensorInfo(entry.dtype, tuple(entry.shape), base + begin, end - begin)
