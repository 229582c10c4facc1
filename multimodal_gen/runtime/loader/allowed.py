"""Classes of diffusers and transformers that a checkpoint may name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

import diffusers.schedulers

from multimodal_gen.configs.families import FAMILIES, FamilyConfig
from multimodal_gen.configs.families.components import Kind

ALL_SCHEDULERS = tuple(name for name in dir(diffusers.schedulers) if name.endswith("Scheduler"))
"""For the fallback, whose pipelines use their schedulers themselves."""


def allowed_by(families: Iterable[FamilyConfig]) -> dict[tuple[str, str], Kind]:
    """Classes that the families' tables name, by (library, class). The first family that loads a
    class says how."""
    allowed: dict[tuple[str, str], Kind] = {}
    named = list(families)
    for family in named:
        for component in family.components.values():
            for name in component.classes:
                allowed.setdefault((component.library, name), component.kind)
    unused = (each for family in named for each in family.unused)
    return {**dict.fromkeys(unused, "unused"), **allowed}


ALLOWED: Mapping[tuple[str, str], Kind] = {
    **{("diffusers", name): "scheduler" for name in ALL_SCHEDULERS},
    **allowed_by(FAMILIES),
}
"""(library, class) as in model_index.json. No other class is ever imported for a checkpoint."""


def are_alike(component: str, class_name: str, other: str) -> bool:
    """True if a family takes either of two classes for a component."""
    specs = (family.components.get(component) for family in FAMILIES)
    return any(spec is not None and {class_name, other} <= {*spec.classes} for spec in specs)


def classes_like(class_name: str, component: str) -> list[str]:
    """Allowed classes with a similar name, otherwise those that families name for a component."""
    similar = get_close_matches(class_name, [known for _, known in ALLOWED])
    specs = (family.components.get(component) for family in FAMILIES)
    return similar or sorted({known for spec in specs if spec for known in spec.classes})
