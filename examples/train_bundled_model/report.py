"""Tables of figures, as Markdown."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    what: str
    number: int
    """Of prompts or pictures."""
    scores: dict[str, float]


class Table(NamedTuple):
    title: str
    rows: list[Row]

    def markdown(self) -> str:
        columns = list(dict.fromkeys(column for row in self.rows for column in row.scores))
        lines = [_line("", "n", *columns), _line("---", *("---:" for _ in range(1 + len(columns))))]
        for row in self.rows:
            cells = (_cell(row.scores.get(column)) for column in columns)
            lines.append(_line(row.what, str(row.number), *cells))
        return f"### {self.title}\n\n" + "\n".join(lines) + "\n"


class Report(NamedTuple):
    tables: list[Table]
    bytes: int
    """Of all files of the model."""

    def markdown(self) -> str:
        size = f"All files: {self.bytes:,} bytes.\n"
        return "\n".join([*(table.markdown() for table in self.tables), size])


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(score: float | None) -> str:
    """Shares with three decimals, decibels and the like with one."""
    if score is None:
        return ""
    return f"{score:.3f}" if score <= 1 else f"{score:.1f}"
