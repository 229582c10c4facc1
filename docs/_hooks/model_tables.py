"""Model families and solvers, from the tables that declare them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markdown_table import code, table

from multimodal_gen.configs.families import FAMILIES, FamilyConfig
from multimodal_gen.configs.families.modular import MODULAR
from multimodal_gen.configs.families.published import (
    PublishedModel,
    defaults_of,
    published_models,
)
from multimodal_gen.configs.solvers import SOLVERS, noise_schedules_of
from multimodal_gen.entrypoints.cli.checkpoint.published_memory import FORMS
from multimodal_gen.entrypoints.cli.checkpoint.published_text import (
    UNKNOWN,
    at_once_text,
    licenses_of,
    memory_texts,
    size_text,
)

_BUNDLED = ("bundled model", "0.015", "", "", "", "each request", "apache-2.0")
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


def published() -> str:
    """Return each published checkpoint with its defaults, memory, license and what was tried."""
    rows = [
        (
            f"[{model.name.rpartition('/')[2]}](https://huggingface.co/{model.name})",
            size_text(defaults_of(family, model)),
            str(defaults_of(family, model).num_inference_steps),
            *memory_texts(family, model),
            at_once_text(family, model),
            model.license or UNKNOWN,
            ", ".join(model.tried),
        )
        for family in FAMILIES
        for model in published_models(family)
    ]
    bits = tuple(f"{each} bits" for each in FORMS)
    return table(("checkpoint", "size", "steps", *bits, "at once", "license", "tried as"), rows)


def overview() -> str:
    """Return the README's table: what each family takes, and what its licenses are."""
    rows = [
        row
        for family in FAMILIES
        for row in (_by_model(family) if family.denoiser == "fallback" else [_of_family(family)])
    ]
    bits = tuple(f"{each} bits" for each in FORMS)
    header = ("model", *bits, "at once", "GPUs share", "license")
    return table(header, [_BUNDLED, *rows])


def _of_family(family: FamilyConfig) -> tuple[str, ...]:
    return _told(family, family.title, published_models(family))


def _by_model(family: FamilyConfig) -> list[tuple[str, ...]]:
    models = published_models(family)
    return [_told(family, model.title or model.short_name, [model]) for model in models]


def _told(family: FamilyConfig, title: str, models: Sequence[PublishedModel]) -> tuple[str, ...]:
    shared = "each request" if family.ulysses else "batches"
    return (
        title,
        *_ranges([(*memory_texts(family, each), at_once_text(family, each)) for each in models]),
        shared if family.shares_rows else "",
        ", ".join(licenses_of(models)),
    )


def _ranges(rows: Iterable[Sequence[str]]) -> list[str]:
    """The smallest and the largest number of each column; rows without numbers are left out."""
    columns = zip(*rows, strict=True)
    numbers = (sorted(filter(None, column), key=float) for column in columns)
    return [" to ".join(dict.fromkeys((*each[:1], *each[-1:]))) for each in numbers]


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
