"""Benchmark results: figures with their targets, as a table and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

import msgspec

Bound = Literal["at most", "at least"]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured value; `low` and `high` are the range of its repeats."""

    name: str
    what: str
    value: float
    unit: str
    low: float
    high: float
    target: float | None = None
    bound: Bound = "at most"
    details: dict[str, float] = {}

    @property
    def met(self) -> bool | None:
        """True if the target is met; None if there is none."""
        if self.target is None:
            return None
        return self.value <= self.target if self.bound == "at most" else self.value >= self.target


class Report(msgspec.Struct, frozen=True, kw_only=True):
    environment: dict[str, str | int]
    figures: list[Figure]
    failures: dict[str, str] = {}
    """What could not be measured, or not all of it, and why."""

    def to_json(self) -> bytes:
        rows = [{**msgspec.structs.asdict(figure), "met": figure.met} for figure in self.figures]
        return msgspec.json.format(
            msgspec.json.encode(
                {"environment": self.environment, "figures": rows, "failures": self.failures}
            ),
            indent=2,
        )

    def table(self) -> str:
        """Format as text: the environment, then one line per figure."""
        head = ("measure", "value", "spread", "target", "met")
        rows = [head, *(_row(figure) for figure in self.figures)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        settings = ", ".join(f"{name} {value}" for name, value in self.environment.items())
        notes = [f"{figure.name}: {figure.what}" for figure in self.figures]
        failed = [f"{name}: NOT MEASURED: {reason}" for name, reason in self.failures.items()]
        return "\n".join([settings, "", *lines, "", *notes, *failed])


def ratio(
    name: str,
    what: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    target: float,
    bound: Bound = "at most",
) -> Figure:
    """Ratio of the medians of alternating measurements; the range is that of the pairs."""
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Figure(
        name=name,
        what=what,
        value=statistics.median(ours) / statistics.median(theirs),
        unit="x",
        low=min(pairs),
        high=max(pairs),
        target=target,
        bound=bound,
        details={"ours": statistics.median(ours), "theirs": statistics.median(theirs)},
    )


def median(
    name: str, what: str, values: Sequence[float], unit: str, *, target: float | None = None
) -> Figure:
    """Median of repeated measurements."""
    return Figure(
        name=name,
        what=what,
        value=statistics.median(values),
        unit=unit,
        low=min(values),
        high=max(values),
        target=target,
    )


def single(
    name: str,
    what: str,
    value: float,
    unit: str,
    *,
    target: float | None = None,
    bound: Bound = "at most",
) -> Figure:
    """A value that was measured once."""
    return Figure(
        name=name,
        what=what,
        value=value,
        unit=unit,
        low=value,
        high=value,
        target=target,
        bound=bound,
    )


def _row(figure: Figure) -> tuple[str, ...]:
    number = "{:.0f}" if figure.unit == "us" else "{:.3g}" if figure.unit == "s" else "{:.2f}"
    value, low, high = (number.format(x) for x in (figure.value, figure.low, figure.high))
    if figure.target is None:
        target = ""
    else:
        target = f"{figure.bound} {number.format(figure.target)} {figure.unit}"
    met = {True: "yes", False: "NO", None: ""}[figure.met]
    return figure.name, f"{value} {figure.unit}", f"{low} to {high}", target, met
