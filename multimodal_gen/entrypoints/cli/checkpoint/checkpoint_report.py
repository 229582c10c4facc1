"""Output of `multimodal-gen models PATH`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from multimodal_gen.checkpoints.description import Component, Description
from multimodal_gen.checkpoints.identify import component_in_file, identify
from multimodal_gen.configs.families import FamilyConfig
from multimodal_gen.entrypoints.cli.checkpoint.memory_forecast import (
    MemoryForecast,
    forecast,
    whole_components,
)
from multimodal_gen.entrypoints.cli.text_output import bytes_text, columns, scaled
from multimodal_gen.launch.device_memory import DeviceMemory
from multimodal_gen.launch.expected_model import facts_of

_HEAD = ("component", "class", "parameters", "bytes", "types", "files", "loaded", "residency")
_SHOWN = 3


def report(path: Path, device: DeviceMemory | None, files: Mapping[str, Path]) -> int:
    """Describe the checkpoint at a path, with components that have `files` of their own, and the
    memory that it needs on a device; returns exit status 1 if it can't be loaded."""
    found = identify(path)
    components, lacking = whole_components(found)
    classes = _classes(components, None if lacking is None else found.family)
    own = {name: component_in_file(name, file, classes) for name, file in files.items()}
    components = tuple({**{each.name: each for each in components}, **own}.values())
    found = replace(found, components=tuple(own.get(each.name, each) for each in found.components))
    print("\n".join([str(path), *(f"  {name:<11}{value}" for name, value in _facts(found))]))
    memory = None
    if found.family is not None and device is not None:
        memory = forecast(found.family, components, device)
    rows = [_HEAD, *(_row(each, memory) for each in components)]
    print("\n".join(["", *(f"  {line}" for line in columns(rows))]))
    if found.family is not None and not found.complaints:
        print(f"\n  memory: {_need(memory, lacking)}")
    for warning in found.warnings:
        print(f"  warning: {warning}")
    for complaint in found.complaints:
        print(f"  can't be loaded: {complaint}")
    return 1 if found.complaints else 0


def _classes(
    components: Iterable[Component], family: FamilyConfig | None
) -> dict[str, tuple[str, ...]]:
    """Classes of the components that have weights: with a family, also of those that are not
    here."""
    known = {each.name: (each.class_name,) for each in components if each.files or each.problem}
    others = {} if family is None else family.components
    return {n: each.classes for n, each in others.items() if each.has_weights} | known


def _facts(found: Description) -> list[tuple[str, str]]:
    facts = [("layout", found.layout)]
    if found.family is not None:
        pipeline = f" ({found.pipeline_class})" if found.pipeline_class else ""
        facts.append(("family", f"{found.family.name}: {found.family.title}{pipeline}"))
        facts.append(("tasks", ", ".join(found.family.tasks)))
    if found.alike:
        others = ", ".join(family.title for family in found.alike)
        facts.append(("or", f"{others}: with a base of that family"))
    if found.scheduler_settings:
        told = ", ".join(f"{name} {value}" for name, value in found.scheduler_settings.items())
        facts.append(("scheduler", told))
    if found.quantisation:
        facts.append(("quantised", ", ".join(found.quantisation)))
    if found.fits:
        facts.append(("fits", f"{', '.join(found.fits)}, with --component NAME={found.path}"))
    facts += _of_requests(found.path)
    if found.base is not None:
        facts.append(("base", f"{found.base}, unless --base-model-path names another"))
    return facts


def _of_requests(path: Path) -> list[tuple[str, str]]:
    """Facts for requests: sizes that it draws, and parameters that change nothing."""
    limits, idle = facts_of(path)
    stated = msgspec.structs.asdict(limits)
    told = ", ".join(f"{name} {value:g}" for name, value in stated.items() if value is not None)
    facts = [("limits", told)] if told else []
    return [*facts, ("no effect", ", ".join(idle))] if idle else facts


def _need(memory: MemoryForecast | None, lacking: str | None) -> str:
    told = "pass --device-memory-gb to hear whether it fits" if memory is None else memory.sentence
    return told if lacking is None else f"{told}; without the components of {lacking}"


def _row(component: Component, memory: MemoryForecast | None) -> tuple[str, ...]:
    if not component.files:
        return component.name, component.class_name, *[""] * (len(_HEAD) - 2)
    files = (
        component.files[0].name if len(component.files) == 1 else f"{len(component.files)} shards"
    )
    variant = f" ({component.variant})" if component.variant else ""
    return (
        component.name,
        component.class_name,
        scaled(component.parameters, ("", "K", "M", "B", "T")),
        bytes_text(component.size),
        ", ".join(list(component.dtypes)[:_SHOWN]),
        files + variant,
        *_loaded(component.name, memory),
    )


def _loaded(name: str, memory: MemoryForecast | None) -> tuple[str, str]:
    if memory is None or name not in memory.kept:
        return "", ""
    return bytes_text(memory.kept[name]), memory.places.get(name, "")
