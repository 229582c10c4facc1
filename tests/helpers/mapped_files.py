"""Where this process has a file in memory. Linux only."""

from __future__ import annotations

from pathlib import Path


def mapped(path: Path) -> list[range]:
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    spans = [line[0].split("-") for line in lines if line[-1] == str(path)]
    return [range(int(start, 16), int(end, 16)) for start, end in spans]
