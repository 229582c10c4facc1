"""`multimodal-gen models`."""

from __future__ import annotations

from multimodal_gen.configs.families import FAMILIES, FamilyConfig


def models() -> None:
    """List the model families that checkpoints can belong to."""
    print("\n\n".join(_description(family) for family in FAMILIES))


def _description(family: FamilyConfig) -> str:
    known = family.defaults
    defaults = {
        name: getattr(known, name)
        for name in known.__struct_fields__
        if getattr(known, name) is not None
    }
    rows = {
        "tasks": ", ".join(family.tasks),
        "checkpoints": ", ".join(family.pipeline_classes),
        "schedulers": ", ".join(family.schedulers),
        "parameters": ", ".join(family.parameters) or "none of its own",
        "sizes": f"multiples of {family.size_multiple}, up to {family.limits.max_pixels} pixels",
        "defaults": ", ".join(f"{name} {value}" for name, value in defaults.items()),
    }
    lines = [f"  {name:<12}{value}" for name, value in rows.items()]
    return "\n".join([f"{family.name} ({family.title})", *lines])
