"""Access to a checkpoint's files as data: none outside its folder, none that could run code."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from multimodal_gen.checkpoints.config_numbers import check_vae
from multimodal_gen.checkpoints.header import read_header
from multimodal_gen.errors import InvalidCheckpoint

_SHARED_STORE = ".huggingface-shared-blobs"
"""Marks the folder of a cache in which repositories share files."""
_MAX_JSON_BYTES = 64 << 20
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
"""Escape of half a surrogate pair, in JSON."""
_MAX_LAYERS = 1000
_MAX_SIZE = 1 << 20
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5")


@dataclass(frozen=True)
class WeightFiles:
    """The safetensors files of one component."""

    paths: tuple[Path, ...]
    variant: str | None
    """`fp16` for files such as `model.fp16.safetensors`."""
    weight_map: Mapping[str, str] = field(default_factory=dict)
    """For shards: tensor name to file name."""
    index: str | None = None
    """For shards: name of their index."""


def is_told(name: str) -> bool:
    """True if the name of a file is text: other names can neither be requested nor shown."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def inside(root: Path, name: str) -> Path:
    """Path of `name` in a checkpoint. Raises InvalidCheckpoint if it leads outside of `root`.

    One exception is the hub's cache, whose snapshots link to blobs.
    """
    path = root / name
    homes = _homes(root.resolve())
    outside = Path(name).is_absolute() or ".." in Path(name).parts
    try:
        target = path.resolve()
        target.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, a link to itself
        # Clients read this too, so the folder is not told.
        reason = error.strerror if isinstance(error, OSError) else "a NUL, or a link to itself"
        raise InvalidCheckpoint(f"{name!r:.100}: not a usable file name: {reason}") from error
    if outside or not any(target.is_relative_to(home) for home in homes):
        raise InvalidCheckpoint(f"{name}: is outside of the checkpoint's folder")
    return path


def _homes(root: Path) -> list[Path]:
    """Folders in which the files of a checkpoint may lie: its own and, of the hub's cache, the
    blobs of its repository and those that repositories share. A link is not taken for these."""
    repository = root.parent.parent
    if root.parent.name != "snapshots":
        return [root]
    stores = [repository / "blobs"]
    if (repository.parent / "blobs" / _SHARED_STORE).is_file():
        stores.append(repository.parent / "blobs")
    return [root, *(store for store in stores if store.resolve() == store)]


def read_json(root: Path, name: str) -> dict[str, Any]:
    """Read the JSON object in file `name`. Raises InvalidCheckpoint."""
    path = inside(root, name)
    if not path.is_file():
        raise InvalidCheckpoint(f"{name}: no such file in {root}")
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise InvalidCheckpoint(f"{name}: larger than {_MAX_JSON_BYTES} bytes")
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        if _HALF_PAIR.search(text):  # Alone it is valid JSON, but no text that could be told.
            json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidCheckpoint(f"{name}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise InvalidCheckpoint(f"{name}: must be a JSON object, not {type(content).__name__}")
    return content


def weight_files(root: Path, component: str, stem: str) -> WeightFiles:
    """Find the weights of `component`, named `stem`: plain before variants, each file checked."""
    folder = inside(root, component)
    found = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    names = sorted(name for name in found if is_told(name))
    candidates = [each for name in names if (each := _weight_file(name, stem))]
    if not candidates:
        raise InvalidCheckpoint(_none_found(component, stem, names))
    best = min(candidates)
    weight_map = _shards(root, f"{component}/{best.name}") if best.is_index else {}
    files = sorted(set(weight_map.values())) or [best.name]
    paths = tuple(inside(root, f"{component}/{file}") for file in files)
    for path in paths:
        name = path.relative_to(root).as_posix()
        if read_header(path, name).format != "safetensors":
            raise InvalidCheckpoint(f"{name}: must be safetensors, is GGUF")
    index = best.name if best.is_index else None
    return WeightFiles(paths, best.variant or None, weight_map, index)


class _WeightFile(NamedTuple):
    """Sorts by preference: plain, fp16, then other variants; a single file before shards."""

    is_variant: bool
    is_other: bool
    variant: str
    is_index: bool
    name: str


def _weight_file(name: str, stem: str) -> _WeightFile | None:
    """Parse a file name; None for shards and for files that aren't weights."""
    parts = name.split(".")
    if parts[0] != stem or "safetensors" not in parts:
        return None
    is_index = parts[-1] == "json" and "index" in parts
    if not is_index and parts[-1] != "safetensors":
        return None
    rest = [part for part in parts[1:] if part not in ("safetensors", "index", "json")]
    if len(rest) > 1 or any("-of-" in part for part in rest):
        return None
    variant = "".join(rest)
    return _WeightFile(variant != "", variant != "fp16", variant, is_index, name)


def _shards(root: Path, index: str) -> dict[str, str]:
    weight_map = read_json(root, index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InvalidCheckpoint(f"{index}: weight_map is missing")
    shards = {str(tensor): str(file) for tensor, file in weight_map.items()}
    for file in set(shards.values()):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise InvalidCheckpoint(
                f"{index}: {file!r} must be the name of a safetensors file in the same folder"
            )
    return shards


def _none_found(component: str, stem: str, names: list[str]) -> str:
    wanted = f"{component}: no {stem}.safetensors, no shards with an index, no variant of it"
    pickles = [name for name in names if name.endswith(PICKLE_SUFFIXES)]
    if pickles:
        return (
            f"{wanted}. {pickles[0]} could run code, so it is not read: convert it to safetensors"
        )
    return wanted


def check_config(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a component's config without keys that select code. Raises InvalidCheckpoint.

    Refused: `auto_map`, which names code in the checkpoint, and `quantization_config`, which
    selects a library's other loader. Removed: `_attn…` and `…_implementation`, which select
    kernels, even those of a repository on the hub.
    """
    for key in ("auto_map", "quantization_config"):
        if config.get(key):
            raise InvalidCheckpoint(f"{name}: {key} is not supported")
    return {
        key: check_config(value, name) if isinstance(value, dict) else value
        for key, value in config.items()
        if not key.startswith("_attn") and not key.endswith("_implementation")
    }


def module_config(root: Path, component: str) -> dict[str, Any]:
    """Read a module's config.json and check its sizes. Raises InvalidCheckpoint.

    Without the check, just creating a module of 10^9 layers would exhaust the memory.
    """
    name = f"{component}/config.json"
    config = read_json(root, name)
    config.pop("quantization_config", None)  # quantization_settings() reads it.
    config = check_config(config, name)
    check_module(config, component, name)
    return config


def check_module(config: Mapping[str, Any], component: str, name: str) -> None:
    """Check the sizes in a module's config, called `name` in errors. Raises InvalidCheckpoint."""
    check_sizes(config, name)
    if component == "vae":
        check_vae(config, name)


def check_sizes(config: Mapping[str, Any], name: str) -> None:
    """Raise InvalidCheckpoint for a number of layers, or another size, that no real model has, and
    for a number that is not finite."""
    for key, value in config.items():
        _check_finite(key, value, name)
        _check_size(key, value, name)


def _check_finite(key: str, value: object, name: str) -> None:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        _check_finite(key, part, name)
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidCheckpoint(f"{name}: {key}={value} must be a finite number")


def _check_size(key: str, value: object, name: str) -> None:
    for item in value if isinstance(value, list) else ():
        _check_size(key, item, name)
    if not isinstance(value, int) or key.endswith("_token_id"):
        return
    counts_layers = "layers" in key or "blocks" in key
    least, most = (0, _MAX_LAYERS) if counts_layers else (-_MAX_SIZE, _MAX_SIZE)
    if not least <= value <= most:
        raise InvalidCheckpoint(f"{name}: {key}={value} must be {least} to {most}")


def names_class(value: object) -> bool:
    """True for an entry of model_index.json that is a component; a list of numbers is an option."""
    numbers = isinstance(value, list) and all(isinstance(part, int | float) for part in value)
    return isinstance(value, list) and not (value and numbers)
