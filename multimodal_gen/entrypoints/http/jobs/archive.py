"""A zip of many results, made while it is sent."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, cast

_CHUNK = 1 << 20


class _Pipe:
    """A file that can't be sought: what is written to it is taken from it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None: ...

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def zipped(files: Iterable[tuple[str, IO[bytes]]]) -> Iterator[bytes]:
    """Yield a zip of files by name, about a megabyte at a time; stored, because pictures and videos
    are already compressed. Each file is closed."""
    pipe = _Pipe()
    with zipfile.ZipFile(cast("IO[bytes]", pipe), "w") as archive:
        for name, file in files:
            with file, archive.open(_entry(name), "w", force_zip64=True) as member:
                while chunk := file.read(_CHUNK):
                    member.write(chunk)
                    yield pipe.take()
            yield pipe.take()
    yield pipe.take()


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, time.localtime()[:6])


def without_doubles(names: Iterable[str]) -> Iterator[str]:
    """Yield each name; those that were there before with a number."""
    seen: set[str] = set()
    for name in names:
        path, number, free = Path(name), 2, name
        while free in seen:
            free, number = f"{path.stem}-{number}{path.suffix}", number + 1
        seen.add(free)
        yield free
