"""An operator's folder of adapters, each a file or a folder, addressed by name."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from multimodal_gen.checkpoints.files import PICKLE_SUFFIXES, inside, is_told
from multimodal_gen.errors import InvalidCheckpoint, InvalidRequest

_SUFFIXES = (".safetensors", ".sft")
_SHOWN = 50


@dataclass(frozen=True)
class AdapterFile:
    """An adapter on disk."""

    name: str
    weights: Path
    config: Path | None
    """Its config file, if there is one next to the weights."""

    @property
    def stamp(self) -> str:
        """Fingerprint that changes with the files, on this host. Raises OSError if they are
        gone."""
        found = [path.stat() for path in self._paths]
        return " ".join(f"{stat.st_mtime_ns}:{stat.st_size}:{stat.st_ino}" for stat in found)

    @property
    def digest(self) -> str:
        """Digest of the files' content; slow. Raises OSError if they are gone."""
        whole = hashlib.blake2b(digest_size=32)
        for path in self._paths:
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "blake2b").digest())
        return whole.hexdigest()

    @property
    def _paths(self) -> list[Path]:
        return [path for path in (self.weights, self.config) if path is not None]


class AdapterFolder:
    """Adapters by name: the stem of a safetensors file, or the name of a folder that has one."""

    field: ClassVar[str]
    """The parameter that names them."""
    config: ClassVar[str]
    """Name of the config file in an adapter's folder."""
    beside: ClassVar[Sequence[str]] = ()
    """Names of folders that belong to the files beside them."""
    preferred: ClassVar[Sequence[str]]
    """Names of weight files that libraries use, for folders with several."""

    def __init__(self, root: Path) -> None:
        """Raises InvalidRequest if the folder does not exist."""
        if not root.is_dir():
            raise InvalidRequest(f"{self.field}_dir", str(root), "must be a folder")
        self._root = root

    def names(self) -> list[str]:
        """Names of those currently in the folder."""
        try:
            found = [entry for entry in self._root.iterdir() if not entry.name.startswith(".")]
        except OSError:  # It is gone.
            return []
        names = {name for entry in found if (name := _name_of(entry)) and is_told(name)}
        return sorted(names - {*self.beside})

    def sizes(self) -> list[int]:
        """Bytes of those currently in the folder, the largest first."""
        found = []
        for name in self.names():
            with contextlib.suppress(InvalidRequest, OSError):
                found.append(self.find(name).weights.stat().st_size)
        return sorted(found, reverse=True)

    def find(self, name: str) -> AdapterFile:
        """Return the adapter of this name. Raises InvalidRequest, which lists the available
        ones."""
        try:
            return self._find(name)
        except InvalidCheckpoint as error:
            raise InvalidRequest(self.field, name, error.message) from error

    def _find(self, name: str) -> AdapterFile:
        if not name or Path(name).name != name or name.startswith("."):
            raise self._unknown(name)
        for suffix in _SUFFIXES:
            path = inside(self._root, name + suffix)
            if path.is_file():
                return AdapterFile(name, path, None)
        folder = inside(self._root, name)
        if not folder.is_dir():
            _refuse_pickles([name, *(name + suffix for suffix in PICKLE_SUFFIXES)], self._root)
            raise self._unknown(name)
        config = inside(self._root, f"{name}/{self.config}")
        weights = inside(self._root, f"{name}/{self._weights_of(folder)}")
        return AdapterFile(name, weights, config if config.is_file() else None)

    def _unknown(self, name: str) -> InvalidRequest:
        names = self.names()
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        known = ", ".join(names[:_SHOWN]) + more if names else "none"
        return InvalidRequest(self.field, name, f"is not known; available: {known}")

    def _weights_of(self, folder: Path) -> str:
        files = _weights_in(folder)
        for preferred in self.preferred:
            if preferred in files:
                return preferred
        if len(files) == 1:
            return files[0]
        if not files:
            _refuse_pickles(sorted(file.name for file in folder.iterdir()), folder)
        listed = ", ".join(files) or "none"
        raise InvalidCheckpoint(f"its folder must hold exactly one safetensors file, not {listed}")


def _name_of(entry: Path) -> str | None:
    if entry.is_file():
        return entry.stem if entry.suffix in _SUFFIXES else None
    with contextlib.suppress(OSError):  # another user's folder
        return entry.name if entry.is_dir() and _weights_in(entry) else None
    return None


def _weights_in(folder: Path) -> list[str]:
    files = (file for file in folder.iterdir() if file.suffix in _SUFFIXES)
    return sorted(file.name for file in files if is_told(file.name))


def _refuse_pickles(names: Iterable[str], folder: Path) -> None:
    """Raise InvalidCheckpoint if one of these files is a pickle."""
    for name in names:
        if name.endswith(PICKLE_SUFFIXES) and (folder / name).is_file():
            raise InvalidCheckpoint(
                f"{name} could run code, so it is not read: convert it to safetensors"
            )
