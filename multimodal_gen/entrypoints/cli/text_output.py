"""Text on standard output: tables, and a reader that goes away (`generate … | head -1`)."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_STEP = 1000
_SHORT = 100
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line per row, its cells padded so that the columns align."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def bytes_text(size: float, digits: int = 1) -> str:
    """Return a size in the unit that suits it, of 1000s as in `--device-memory-gb`: `24.0 GB`."""
    return scaled(size, ("B", "KB", "MB", "GB", "TB"), digits)


def scaled(number: float, units: Sequence[str], digits: int = 1) -> str:
    """Return a number in the unit that suits it, each of which is 1000 of the one before; with
    `digits` decimals if it has a unit beyond the first and is less than 100."""
    unit = 0
    while number >= _STEP and unit < len(units) - 1:
        number /= _STEP
        unit += 1
    text = f"{number:.{digits}f}" if unit and number < _SHORT else f"{number:.0f}"
    return f"{text} {units[unit]}".rstrip()


def printable(text: str) -> str:
    """Escape what a terminal would obey: the text may be of a file that anybody has made."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


@contextmanager
def may_be_closed() -> Iterator[None]:
    """Print inside. Once nobody reads, this and all further output is discarded."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
