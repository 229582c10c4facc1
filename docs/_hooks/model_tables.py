"""Model families and solvers, from the tables that declare them."""

from __future__ import annotations

from typing import get_args

from markdown_table import code, table

from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.solvers import SOLVERS
from multimodal_gen.messages.model_info import TaskName

_KINDS = {"native": "native", "adapter": "wrapped", "fallback": "fallback"}


def families() -> str:
    """Return each family with its tasks, file formats and parallelism."""
    header = (
        "family",
        *get_args(TaskName),
        "denoiser",
        "single file",
        "GGUF",
        "batching",
        "Ulysses",
    )
    rows = [
        (
            family.title,
            *(_mark(task in family.tasks) for task in get_args(TaskName)),
            _KINDS[family.denoiser],
            ", ".join(family.file_styles),
            _mark(bool(family.single_files)),
            _mark(family.shares_rows),
            _mark(family.ulysses),
        )
        for family in FAMILIES
    ]
    return table(header, rows)


def solvers() -> str:
    """Return each solver with what it suits and what other programs call it."""
    rows = [
        (
            code(row.name),
            ", ".join(view.value for view in row.views),
            code(row.scheduler),
            row.a1111 or "",
            ", ".join(map(code, row.comfyui)),
        )
        for row in SOLVERS.values()
    ]
    return table(("name", "models", "diffusers class", "AUTOMATIC1111", "ComfyUI"), rows)


def _mark(true: bool) -> str:
    return "✓" if true else ""
