"""Text on standard output: tables, and a reader that goes away (`generate … | head -1`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line per row, its cells padded so that the columns align."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


@contextmanager
def may_be_closed() -> Iterator[None]:
    """Print inside. Once nobody reads, this and all further output is discarded."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
