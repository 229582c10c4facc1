"""Finds out which components of a checkpoint are in weight files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from multimodal_gen.checkpoints.file_parts import Classes, listed
from multimodal_gen.checkpoints.single_file import Recognised, component_part, recognise
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.runtime.loader.single_file.weights import ComponentWeights

Components = Mapping[str, tuple[str, str]]
"""Library and class of each component of a checkpoint, by name."""
_EXPERTS = (("high", ""), ("low", "_2"))
_FOR_REFERENCES = "transformer_ref"


def in_single_file(
    path: Path, components: Components, base: str, given: Collection[str]
) -> tuple[dict[str, ComponentWeights], list[str]]:
    """Find the components of `base` in a single file; also returns what is not used of the file.

    `given` are the components that have files of their own. Raises InvalidCheckpoint.
    """
    found = recognise(path)
    classes = _classes(components)
    placed = {_denoiser(found, components, base, given): found.denoiser}
    unused = [listed(found.ignored)] if found.ignored else []
    for part in found.parts[1:]:
        name = part.place(classes)
        if name is None or name in placed:
            unused.append(f"{part.prefix} ({part.title}), for which {base} has no place")
        else:
            placed[name] = part
    unused += [f"{name}, which has a file of its own" for name in placed if name in given]
    weights = {name: ComponentWeights(name, found.header, part) for name, part in placed.items()}
    return weights, [f"{path.name}: not used: {what}" for what in unused]


def in_component_file(name: str, path: Path, components: Components) -> ComponentWeights:
    """Find component `name` in a file. Raises InvalidCheckpoint that says what the file holds."""
    return ComponentWeights(name, *component_part(name, path, _classes(components)))


def _classes(components: Components) -> Classes:
    return {name: (class_name,) for name, (_, class_name) in components.items()}


def _denoiser(found: Recognised, components: Components, base: str, given: Collection[str]) -> str:
    """The base's component that the file's denoiser replaces."""
    path, wanted = found.header.path, found.layout.denoiser
    names = [name for name, (_, class_name) in components.items() if class_name == wanted]
    if not names:
        others = ", ".join(class_name for _, class_name in components.values())
        raise InvalidCheckpoint(
            f"{path.name} has a {wanted} ({found.family.title}), which {base} does not use: "
            f"its components are {others}. Give another --base-model-path"
        )
    free = [name for name in names if name not in given] or names
    if len(free) == 1:
        return free[0]
    if _FOR_REFERENCES in free:
        return _FOR_REFERENCES if "ref" in path.name.lower() else free[0]
    told = [
        name
        for mark, suffix in _EXPERTS
        for name in free
        if mark in path.name.lower() and name == f"transformer{suffix}"
    ]
    if len(told) != 1:
        raise InvalidCheckpoint(
            f"{path.name}: {base} has {len(names)} of {wanted} ({', '.join(names)}); the file's "
            "name must say which one it is: high (noise, the first) or low (noise, the second). "
            f"Or give both: {' '.join(f'--component {name}=FILE' for name in names)}"
        )
    return told[0]
