"""Reads the header of a weight file: names, shapes, types. No tensor is read."""

from __future__ import annotations

from pathlib import Path

from multimodal_gen.checkpoints.gguf_header import MAGIC, read_gguf
from multimodal_gen.checkpoints.safetensors_header import MAX_HEADER_BYTES, read_safetensors
from multimodal_gen.checkpoints.tensor_info import FileFormat, Header
from multimodal_gen.errors import InvalidCheckpoint

WEIGHT_SUFFIXES = (".safetensors", ".sft", ".gguf")
"""Suffixes of weight files. The format is determined by content."""


def read_header(path: Path, name: str | None = None) -> Header:
    """Read the header of a safetensors or GGUF file; errors call the file `name`.

    Reads nothing after the header, and checks all its numbers. Raises InvalidCheckpoint.
    """
    name = name or path.name
    try:
        if file_format(path, name) == "gguf":
            return read_gguf(path, name)
        return read_safetensors(path, name)
    except OSError as error:
        raise InvalidCheckpoint(f"{name}: can't be read: {error.strerror}") from error


def file_format(path: Path, name: str) -> FileFormat:
    """Detect the format by content. Raises InvalidCheckpoint for others, naming well-known ones."""
    if not path.is_file():
        raise InvalidCheckpoint(f"{name}: no such file")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith(MAGIC):
        return "gguf"
    length = int.from_bytes(head[:8], "little")
    if len(head) == 9 and head[8:] == b"{" and length <= min(MAX_HEADER_BYTES, size - 8):
        return "safetensors"
    if head.startswith(b"PK"):
        what = "a zip archive, as written by torch.save"
    elif head.startswith(b"\x80") and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        what = "a pickle"
    elif head == b"version h":
        what = "a git-lfs pointer; the file itself was not fetched"
    else:
        what = "damaged, or another format"
    form = "GGUF" if path.suffix == ".gguf" else "safetensors"
    raise InvalidCheckpoint(f"{name}: not a valid {form} file ({what})")
