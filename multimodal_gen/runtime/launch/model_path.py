"""Where a checkpoint is: the bundled one, a local folder, or a copy from the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

import multimodal_gen
from multimodal_gen.errors import InvalidCheckpoint

BUNDLED_MODEL = Path(multimodal_gen.__file__).parent / "assets" / "bundled_model"
INDEX = "model_index.json"
_REPO_ID = re.compile(r"(?!.*(?:--|\.\.|\.git$))\w[\w.-]*(?:/\w[\w.-]*)?", re.ASCII)
_ROOT_FILES = (INDEX, "generation_defaults.json")
_FOLDER_SUFFIXES = (".json", ".safetensors", ".txt", ".model")


def resolve(model_path: str | None, revision: str | None = None) -> Path:
    """The folder of `model_path`: None is the bundled model, else a local folder or a hub name.

    From the hub come only weights in safetensors and plain data, and where a component has its
    weights in several variants only the plain ones. HF_HOME, HF_TOKEN, HF_ENDPOINT and
    HF_HUB_OFFLINE act as elsewhere. Raises InvalidCheckpoint, which says what to do.
    """
    if model_path is None:
        return BUNDLED_MODEL
    local = Path(model_path).expanduser()
    if local.exists():
        return _checked(local)
    if not _REPO_ID.fullmatch(model_path):
        raise InvalidCheckpoint(
            f"model_path={model_path!r}: no such folder, and not a hub name such as 'owner/name'"
        )
    return _from_hub(model_path, revision)


def wanted_files(names: list[str]) -> list[str]:
    """Of a repository's files those that an engine reads."""
    kept = [name for name in names if name in _ROOT_FILES or _of_component(name)]
    plain = {_folder(name) for name in kept if _is_weights(name) and not _is_variant(name)}
    return [name for name in kept if not (_is_variant(name) and _folder(name) in plain)]


def _checked(folder: Path) -> Path:
    if not folder.is_dir():
        raise InvalidCheckpoint(
            f"{folder}: is a file; model_path must be a folder in diffusers layout, with {INDEX}"
        )
    if not (folder / INDEX).is_file():
        raise InvalidCheckpoint(f"{folder}: has no {INDEX}, so it is not in diffusers layout")
    return folder


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, errors, snapshot_download

    try:
        siblings = HfApi().model_info(name, revision=revision).siblings or []
        files = wanted_files([sibling.rfilename for sibling in siblings])
        if INDEX not in files:
            raise InvalidCheckpoint(f"{name}: has no {INDEX}, so it is not in diffusers layout")
        return Path(snapshot_download(name, revision=revision, allow_patterns=files))
    except errors.GatedRepoError as error:
        raise InvalidCheckpoint(
            f"{name}: is gated; accept its terms at https://huggingface.co/{name}, "
            "then log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InvalidCheckpoint(f"{name}: has no revision={revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise InvalidCheckpoint(
            f"{name}: neither a folder here nor a model on the hub; "
            "if it is private, log in with `hf auth login` or set HF_TOKEN"
        ) from error
    # The base error of the hub's HTTP library, which is another one in every other version.
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        return _from_cache(name, revision, error)


def _from_cache(name: str, revision: str | None, reason: Exception) -> Path:
    from huggingface_hub import errors, try_to_load_from_cache

    index = try_to_load_from_cache(name, INDEX, revision=revision)
    if isinstance(index, str):
        return Path(index).parent
    offline = isinstance(reason, errors.OfflineModeIsEnabled)
    why = "HF_HUB_OFFLINE is set" if offline else f"the hub can't be reached ({reason})"
    raise InvalidCheckpoint(
        f"{name}: {why}, and no copy of it is in the cache; "
        "download it while online, or give a local folder"
    ) from reason


def _of_component(name: str) -> bool:
    folder, _, file = name.partition("/")
    return bool(file) and "/" not in file and file.endswith(_FOLDER_SUFFIXES) and folder[0] != "."


def _folder(name: str) -> str:
    return os.path.dirname(name)


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".safetensors.index.json"))


def _is_variant(name: str) -> bool:
    """`model.fp16.safetensors`, whole or in shards, as against `model.safetensors`."""
    stem = name.removesuffix(".index.json").removesuffix(".safetensors")
    return _is_weights(name) and "." in os.path.basename(re.sub(r"-\d+-of-\d+", "", stem))
