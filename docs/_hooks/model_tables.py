"""Model families and solvers, from the tables that declare them."""

from __future__ import annotations

from markdown_table import code, table

from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.solvers import SOLVERS

_KINDS = {"native": "native", "adapter": "wrapped", "fallback": "fallback"}


def families() -> str:
    """Return each family with its tasks, file formats and parallelism."""
    rows = [
        (
            family.title,
            ", ".join(family.tasks),
            _KINDS[family.denoiser],
            ", ".join(family.file_styles),
            _mark(bool(family.single_files)),
            _mark(family.shares_rows),
            _mark(family.ulysses),
        )
        for family in FAMILIES
    ]
    header = ("family", "tasks", "denoiser", "single file", "GGUF", "batching", "Ulysses")
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
