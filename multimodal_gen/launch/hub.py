"""Gets checkpoints and single files from the Hugging Face hub, or from its cache on disk.

HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE have their usual meaning.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from multimodal_gen.checkpoints.files import read_json
from multimodal_gen.checkpoints.index import INDEX, INDEXES
from multimodal_gen.checkpoints.prompts.examples import EXAMPLES
from multimodal_gen.errors import InvalidCheckpoint

_REPO_ID = re.compile(r"(?!.*(?:--|\.\.|\.git$))\w[\w.-]*(?:/\w[\w.-]*)?", re.ASCII)
_ROOT_FILES = (*INDEXES, "generation_defaults.json", "step_caches.json", EXAMPLES)
_FOLDER_SUFFIXES = (".json", ".safetensors", ".txt", ".model")

WithoutWeights = Callable[[Mapping[str, Any]], set[str]]
"""Maps model_index.json to the components whose weights need not be fetched."""


def is_repository(name: str) -> bool:
    """True if this could be the name of a repository on the hub."""
    return _REPO_ID.fullmatch(name) is not None


def fetch_checkpoint(
    name: str, revision: str | None = None, without_weights: WithoutWeights | None = None
) -> Path:
    """Fetch a repository in diffusers layout and return its folder. Only safetensors and plain data
    are fetched; of a component's weight variants, only the plain one.

    Raises InvalidCheckpoint, which says what to do.
    """
    from huggingface_hub import errors

    try:
        return _fetch_checkpoint(name, revision, without_weights)
    # Base error of the hub's HTTP library, which differs between versions.
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        folder = None if _refused(error) else cached_checkpoint(name, revision)
        if folder is None:
            raise _hub_error(error, name, name, revision) from error
        return folder


def _fetch_checkpoint(
    name: str, revision: str | None, without_weights: WithoutWeights | None
) -> Path:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    siblings = HfApi().model_info(name, revision=revision).siblings or []
    files = wanted_files([sibling.rfilename for sibling in siblings])
    if not any(index in files for index in INDEXES):
        raise InvalidCheckpoint(f"{name}: has no {INDEX}, so it is not in diffusers layout")
    if without_weights is not None and INDEX in files:
        index = Path(hf_hub_download(name, INDEX, revision=revision))
        left_out = without_weights(read_json(index.parent, INDEX))
        files = [f for f in files if not (_is_weights(f) and _folder(f) in left_out)]
    return Path(snapshot_download(name, revision=revision, allow_patterns=files))


def cached_checkpoint(name: str, revision: str | None = None) -> Path | None:
    """Folder of a repository in the cache, or None."""
    found = (cached_file(name, index, revision) for index in INDEXES)
    return next((path.parent for path in found if path is not None), None)


def cached_file(name: str, file: str, revision: str | None = None) -> Path | None:
    """File of a repository in the cache, or None."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, file, revision=revision)
    return Path(path) if isinstance(path, str) else None


def fetch_file(name: str, file: str, revision: str | None = None) -> Path:
    """Fetch one file of a repository. Raises InvalidCheckpoint, which says what to do."""
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(name, file, revision=revision))
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        raise _hub_error(error, name, f"{name}/{file}", revision) from error


def _refused(error: Exception) -> bool:
    """True if the hub answered."""
    from huggingface_hub import errors

    return isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError)


def _hub_error(error: Exception, name: str, what: str, revision: str | None) -> InvalidCheckpoint:
    """Explain why `what` of repository `name` can't be fetched, and what to do."""
    from huggingface_hub import constants, errors

    match error:
        case errors.GatedRepoError():
            message = (
                f"{name}: access is restricted; accept its terms at https://huggingface.co/{name}, "
                "then log in with `hf auth login` or set HF_TOKEN"
            )
        case errors.RevisionNotFoundError():
            message = f"{name}: has no revision={revision!r}"
        case errors.RepositoryNotFoundError():
            message = (
                f"{name}: neither a local folder nor a model on the hub; "
                "if it is private, log in with `hf auth login` or set HF_TOKEN"
            )
        case errors.RemoteEntryNotFoundError():
            message = f"{what}: no such file in {name}"
        case _:
            offline = constants.HF_HUB_OFFLINE
            why = "HF_HUB_OFFLINE is set" if offline else f"the hub can't be reached ({error})"
            message = (
                f"{what}: {why}, and it is not in the cache; "
                "download it while online, or give a local folder"
            )
    return InvalidCheckpoint(message)


def wanted_files(names: list[str]) -> list[str]:
    """Select the repository's files that an engine reads."""
    kept = [name for name in names if name in _ROOT_FILES or _of_component(name)]
    plain = {_folder(name) for name in kept if _is_weights(name) and not _is_variant(name)}
    return [name for name in kept if not (_is_variant(name) and _folder(name) in plain)]


def _of_component(name: str) -> bool:
    folder, _, file = name.partition("/")
    return bool(file) and "/" not in file and file.endswith(_FOLDER_SUFFIXES) and folder[0] != "."


def _folder(name: str) -> str:
    return os.path.dirname(name)


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".safetensors.index.json"))


def _is_variant(name: str) -> bool:
    """True for names like `model.fp16.safetensors`, in contrast to `model.safetensors`; also
    shards."""
    stem = name.removesuffix(".index.json").removesuffix(".safetensors")
    return _is_weights(name) and "." in os.path.basename(re.sub(r"-\d+-of-\d+", "", stem))
