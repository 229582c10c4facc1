"""Checks that a family can run a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from multimodal_gen.configs.families import FamilyConfig
from multimodal_gen.configs.families.components import ComponentSpec
from multimodal_gen.configs.solver_choice import view_of
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.checkpoint import Checkpoint

IsAbsent = Callable[[Checkpoint, str], bool]


def check_components(
    checkpoint: Checkpoint,
    components: Mapping[str, ComponentSpec],
    widths: Mapping[str, tuple[str, ...]],
    is_absent: IsAbsent,
) -> None:
    """Raise InvalidCheckpoint if a component is missing or of another class, or if a number in its
    config, such as `transformer.in_channels`, is not the sum of those in others' configs."""
    for name, component in components.items():
        if not is_absent(checkpoint, name):
            checkpoint.require(name, component.classes)
    for name, parts in widths.items():
        if not any(is_absent(checkpoint, part.partition(".")[0]) for part in parts):
            checkpoint.require_width(name, parts)


def check_view(scheduler_config: Mapping[str, Any], family: FamilyConfig) -> None:
    """Raise InvalidCheckpoint if the scheduler does not suit what the family's models predict."""
    if (view := view_of(scheduler_config)) not in (*family.views, *family.other_views):
        wanted = " or ".join(each.value for each in family.views)
        raise InvalidCheckpoint(
            f"scheduler_config.json: {scheduler_config['_class_name']} is configured for "
            f"{view.value}, but {family.title} needs {wanted}: "
            f"{', '.join(family.schedulers)}"
        )
