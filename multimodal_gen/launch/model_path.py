"""Locates a model's files: the bundled one, a folder, a single file, or a hub name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from multimodal_gen.checkpoints.file_parts import FilePart
from multimodal_gen.checkpoints.header import WEIGHT_SUFFIXES
from multimodal_gen.checkpoints.identify import index_missing
from multimodal_gen.checkpoints.index import INDEX, index_name
from multimodal_gen.checkpoints.single_file import recognise
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.errors import InvalidCheckpoint
from multimodal_gen.launch.hub import (
    WithoutWeights,
    cached_checkpoint,
    cached_file,
    fetch_checkpoint,
    fetch_file,
    is_repository,
)

BUNDLED_MODEL = Path(__file__).parents[1] / "assets" / "bundled_model"


class ModelFiles(NamedTuple):
    """Files that an engine loads."""

    folder: Path
    """Folder in diffusers layout."""
    file: Path | None = None
    """A single weight file that replaces weights in the folder."""
    components: Mapping[str, Path] = {}
    """Weight files that replace those of one component each."""


def find_model_files(
    model_path: str | None,
    revision: str | None = None,
    base_model_path: str | None = None,
    component_files: Mapping[str, str] | None = None,
) -> ModelFiles:
    """Find the files of `model_path`. None is the bundled model; else a local folder or single
    file, or on the hub `owner/name` or `owner/name/file.safetensors` (or .gguf).

    Components that a single file lacks come from `base_model_path`, a folder or hub name. Its
    default is the file's folder if that is in diffusers layout, else the matching published
    checkpoint. `revision` applies to `model_path`. `component_files` are local or on the hub, as
    single files. Raises InvalidCheckpoint, which says what to do.
    """
    given = component_files or {}
    own = {name: _component_file(name, path) for name, path in given.items()}
    return _whole_model(model_path, revision, base_model_path, own)._replace(components=own)


def _whole_model(
    model_path: str | None, revision: str | None, base_model_path: str | None, own: Collection[str]
) -> ModelFiles:
    """The folder and the single file of a model of which `own` components have other files."""
    if model_path is None:
        return ModelFiles(BUNDLED_MODEL)
    file = _file(model_path, revision)
    if file is None and base_model_path is not None:
        raise InvalidCheckpoint(
            f"base_model_path={base_model_path!r}: is only allowed with a single file as "
            f"model_path, and {model_path} is not one"
        )
    if file is None:
        return ModelFiles(_folder("model_path", model_path, revision, _held_by((), own)))
    found = recognise(file)
    held = _held_by(found.parts, own)
    if base_model_path is None and (file.parent / INDEX).is_file():
        return ModelFiles(file.parent, file)
    if base_model_path is not None:
        return ModelFiles(_folder("base_model_path", base_model_path, None, held), file)
    try:
        return ModelFiles(fetch_checkpoint(found.base.repository, None, held), file)
    except InvalidCheckpoint as error:
        raise InvalidCheckpoint(
            f"{file.name}: is {found.family.title}; the components that it lacks (tokenizers, "
            f"configs, …) come from a checkpoint in diffusers layout, by default "
            f"{error.message}. --base-model-path names another"
        ) from error


def locate(model_path: str, revision: str | None = None) -> Path:
    """Local folder or file of `model_path`; nothing is fetched.

    Raises InvalidCheckpoint if there is none.
    """
    local = user_path(model_path)
    if local.exists():
        return local
    if (named := _hub_file(model_path)) is not None:
        found = cached_file(*named, revision)
    else:
        found = cached_checkpoint(model_path, revision) if is_repository(model_path) else None
    if found is None:
        raise InvalidCheckpoint(f"{model_path}: neither a local path nor in the hub's cache")
    return found


def _file(model_path: str, revision: str | None) -> Path | None:
    """Single file that `model_path` refers to; None if it refers to a folder."""
    local = user_path(model_path)
    if local.exists():
        return local if local.is_file() else None
    named = _hub_file(model_path)
    return None if named is None else fetch_file(*named, revision)


def _component_file(name: str, path: str) -> Path:
    found = _file(path, None)
    if found is None:
        raise InvalidCheckpoint(
            f"component={name}={path}: must be a weight file ({', '.join(WEIGHT_SUFFIXES)}), local "
            "or on the hub as owner/name/file.safetensors"
        )
    return found


def _hub_file(model_path: str) -> tuple[str, str] | None:
    """Split `owner/name/file.safetensors` into repository and file."""
    owner, _, rest = model_path.partition("/")
    name, _, file = rest.partition("/")
    repository = f"{owner}/{name}"
    if not file.endswith(WEIGHT_SUFFIXES) or not is_repository(repository):
        return None
    return repository, file


def _folder(field: str, path: str, revision: str | None, held: WithoutWeights) -> Path:
    local = user_path(path)
    if local.exists():
        if not local.is_dir():
            raise InvalidCheckpoint(f"{field}={path!r}: must be a folder in diffusers layout")
        if index_name(local) is None:
            raise InvalidCheckpoint(index_missing(local))
        return local
    if not is_repository(path):
        raise InvalidCheckpoint(
            f"{field}={path!r}: no such file or folder, and not a hub name such as 'owner/name'"
        )
    return fetch_checkpoint(path, revision, held)


def _held_by(parts: Iterable[FilePart], own: Collection[str]) -> WithoutWeights:
    """Select a base's components whose weights are among the parts of a single file, or in files of
    their own."""

    def held(index: Mapping[str, Any]) -> set[str]:
        classes = {
            name: (str(value[1]),)
            for name, value in index.items()
            if isinstance(value, list) and len(value) == 2
        }
        # With two experts, a single file holds only one.
        return {*own, *(name for part in parts if (name := part.place(classes)))}

    return held
