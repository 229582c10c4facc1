"""Model families and solvers, from the tables that declare them."""

from __future__ import annotations

from markdown_table import code, table

from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.families.modular import MODULAR
from multimodal_gen.configs.solvers import SOLVERS, noise_schedules_of

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
    header = ("family", "tasks", "denoiser", "single file", "GGUF", "batching", "ranks share it")
    return table(header, rows)


def modular() -> str:
    """Return the modular pipelines that run, and those that are refused with their reasons."""
    runs = [(code(name), "runs") for name in MODULAR.pipeline_classes]
    refused = [(code(name), reason) for name, reason in MODULAR.refused_classes.items()]
    return table(("class", "here"), [*runs, *refused])


def solvers() -> str:
    """Return each solver with what it suits and what other programs call it."""
    rows = [
        (
            code(row.name),
            ", ".join(view.value for view in row.views),
            code(row.scheduler),
            row.a1111 or "",
            ", ".join(map(code, row.comfyui)),
            _mark(row.explicit_sigmas),
        )
        for row in SOLVERS.values()
    ]
    return table(("name", "models", "diffusers class", "AUTOMATIC1111", "ComfyUI", "sigmas"), rows)


def noise_schedules() -> str:
    """Return each solver's noise schedules for the models that it suits."""
    rows = [
        (code(row.name), ", ".join(map(code, noise_schedules_of([row.name], row.views)[1:])))
        for row in SOLVERS.values()
    ]
    return table(("name", "noise schedules"), rows)


def _mark(true: bool) -> str:
    return "✓" if true else ""
