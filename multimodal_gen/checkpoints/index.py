"""The index of a checkpoint's folder: which pipeline class it is of, its components and settings.

There are two forms. `model_index.json` names a library and a class for each component.
`modular_model_index.json`, of diffusers' modular pipelines, adds where a component's files come
from, which may be anywhere on the hub: here they are in the checkpoint's own folder, or the
component is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimodal_gen.checkpoints.files import inside, names_class, read_json
from multimodal_gen.errors import InvalidCheckpoint

INDEX = "model_index.json"
MODULAR_INDEX = "modular_model_index.json"
INDEXES = (INDEX, MODULAR_INDEX)
_CLASS_FILES = (
    ("config.json", "_class_name"),
    ("scheduler_config.json", "_class_name"),
    ("processor_config.json", "processor_class"),
    ("tokenizer_config.json", "tokenizer_class"),
)
"""Files of a component that tell its class, and the key under which they do."""
_ANY = ("AutoModel", "AutoProcessor", "AutoTokenizer", "PreTrainedModel", "SchedulerMixin")
"""Classes that stand for any of their kind: the component's own files tell which."""


@dataclass(frozen=True)
class CheckpointIndex:
    """Content of an index, as data. No class in it has been looked at."""

    name: str
    """Name of its file."""
    pipeline_class: object
    entries: Mapping[str, list[Any]]
    """Library and class of each component that the checkpoint has, as the file states them."""
    settings: Mapping[str, Any]
    """Of the pipeline."""


def index_name(folder: Path) -> str | None:
    """Name of the index in a folder; None if it has none."""
    return next((name for name in INDEXES if (folder / name).is_file()), None)


def read_index(folder: Path) -> CheckpointIndex:
    """Read the index of a folder. Raises InvalidCheckpoint."""
    name = index_name(folder) or INDEX
    content = read_json(folder, name)
    values = {key: value for key, value in content.items() if not key.startswith("_")}
    listed = {key: value for key, value in values.items() if names_class(value)}
    settings = {key: value for key, value in values.items() if key not in listed}
    if name == MODULAR_INDEX:
        settings |= {key: value for key, value in listed.items() if not _is_component(value)}
        components = {key: value for key, value in listed.items() if key not in settings}
        found = {key: _modular(folder, key, value) for key, value in components.items()}
        entries = {key: value for key, value in found.items() if value is not None}
    else:
        entries = {key: value for key, value in listed.items() if value != [None, None]}
    return CheckpointIndex(name, content.get("_class_name"), entries, settings)


def _is_component(value: list[Any]) -> bool:
    return len(value) == 3 and isinstance(value[2], dict)


def _modular(folder: Path, name: str, value: list[Any]) -> list[Any] | None:
    """Library and class of a component; None if its files are not in the checkpoint."""
    library, class_name, source = value
    subfolder = source.get("subfolder") or name
    if not inside(folder, name).is_dir():
        return None
    if subfolder != name:
        raise InvalidCheckpoint(
            f"{MODULAR_INDEX}: {name}: subfolder={subfolder!r:.100} must be {name!r}"
        )
    hint = source.get("type_hint")
    if class_name is None and isinstance(hint, list) and len(hint) == 2:
        library, class_name = hint
    if class_name is None or class_name in _ANY:
        own = _own_class(folder, name)
        library, class_name = own or (library, class_name)
    return [library, class_name]


def _own_class(folder: Path, name: str) -> tuple[str, str] | None:
    """Library and class that a component's own files state."""
    for file, key in _CLASS_FILES:
        path = f"{name}/{file}"
        if not inside(folder, path).is_file():
            continue
        content = read_json(folder, path)
        if isinstance(content.get(key), str):
            library = "diffusers" if key == "_class_name" else "transformers"
            return library, content[key]
        architectures = content.get("architectures")
        if isinstance(architectures, list) and architectures:
            return "transformers", str(architectures[0])
    return None
