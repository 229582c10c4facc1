"""The families as a table in Markdown: what each does, from what files, over how many ranks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.families.family import FamilyConfig
from multimodal_gen.messages.model_info import TaskName

_YES, _NO = "✓", ""
_COLUMNS = (
    "family",
    *get_args(TaskName),
    "denoiser",
    "folder",
    "single file",
    "GGUF",
    "rows over ranks",
    "sequence over ranks",
)


def families_table() -> str:
    """Each family with its tasks, layouts and parallelism, as the README shows it."""
    rows = [_COLUMNS, ["---"] * len(_COLUMNS), *map(_row, FAMILIES)]
    return "\n".join(_line(row) for row in rows)


def file_styles(family: FamilyConfig) -> str:
    """Whose tensor names its single files may have."""
    return ", ".join(dict.fromkeys(layout.style for layout in family.single_files))


def shares_rows(family: FamilyConfig) -> bool:
    """Whether its requests share batches, and ranks the rows of a batch."""
    return family.denoiser != "fallback"


def _row(family: FamilyConfig) -> Iterable[str]:
    yield family.title
    yield from (_mark(task in family.tasks) for task in get_args(TaskName))
    yield family.denoiser
    yield _YES
    yield file_styles(family)
    yield _mark(bool(family.single_files))
    yield _mark(shares_rows(family))
    yield _mark(family.ulysses)


def _mark(true: bool) -> str:
    return _YES if true else _NO


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print(families_table())
