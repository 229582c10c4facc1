"""Pipelines of diffusers: who runs them, what was seen of them, and what is refused."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from markdown_table import code, table

from multimodal_gen.configs.families import FAMILIES
from multimodal_gen.configs.families.library_pipelines import LIBRARY_TABLE, LibraryPipeline

_TRIED = Path(__file__).parents[1] / "_data" / "library_tries.json"
_OWN = {
    name: family.title
    for family in FAMILIES
    if family.denoiser != "fallback"
    for name in family.pipeline_classes
}


def library_pipelines() -> str:
    """Return each pipeline that runs as a fallback, with its tasks, pictures and what was seen."""
    tried = json.loads(_TRIED.read_text())
    rows = [
        (
            code(name),
            ", ".join(entry.tasks),
            ", ".join(f"{ours}: {code(theirs)}" for ours, theirs in _pictures(entry)),
            "equal" if name in tried else "",
        )
        for name, entry in LIBRARY_TABLE.pipelines.items()
        if name not in _OWN
    ]
    return table(("class", "tasks", "pictures", "two steps"), rows)


def _pictures(entry: LibraryPipeline) -> list[tuple[str, str]]:
    control = [] if entry.control is None else [("control", entry.control)]
    return [*entry.inputs.items(), *control]


def refused_pipelines() -> str:
    """Return the reasons for which pipelines are refused, with their classes."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for name, reason in LIBRARY_TABLE.refused.items():
        if name not in _OWN:
            reasons[reason].append(name)
    rows = [
        (reason, str(len(names)), ", ".join(map(code, names)))
        for reason, names in sorted(reasons.items(), key=lambda each: -len(each[1]))
    ]
    return table(("reason", "classes", "which"), rows)
