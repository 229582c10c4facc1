"""Uploads and results, under ComfyUI's file names."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter, OrderedDict, defaultdict
from typing import NamedTuple

from multimodal_gen.errors import Expired
from multimodal_gen.serving.owner import Owner
from multimodal_gen.serving.storage.results import FileLocation, ResultStore

FOLDERS = ("input", "output", "temp")
MAX_FILES = 20_000
"""Of each owner."""
_MAX_NAME = 100
_UNUSUAL = re.compile(r"[^\w .()-]")
_ANNOTATED = re.compile(r"(.*) \[(input|output|temp)\]", re.DOTALL)

_MAGIC = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"BM": ".bmp"}


class Place(NamedTuple):
    """Location of a file as a client names it. Never used as a path: it is a key of a table."""

    folder: str
    subfolder: str
    name: str

    @classmethod
    def of(cls, text: str, folder: str = "input") -> Place:
        """Parse LoadImage's notation: `name.png`, `sub/name.png`, `name.png [output]`."""
        if (match := _ANNOTATED.fullmatch(text)) is not None:
            text, folder = match[1], match[2]
        subfolder, _, name = text.rpartition("/")
        return cls(folder, subfolder, name)

    def to_json(self) -> dict[str, str]:
        return {"filename": self.name, "subfolder": self.subfolder, "type": self.folder}


class Files:
    """Files per owner; an owner's oldest are forgotten first. Methods may block, and are
    thread-safe."""

    def __init__(self, results: ResultStore) -> None:
        self._results = results
        self._lock = threading.Lock()
        self._files: defaultdict[str, OrderedDict[Place, str]] = defaultdict(OrderedDict)
        self._counts: Counter[str] = Counter()

    def save(self, owner: Owner, folder: str, prefix: str, suffix: str, data: bytes) -> Place:
        """Save a result, with the next number after `prefix`."""
        *parents, stem = sane_parts(prefix) or ["ComfyUI"]
        with self._lock:
            self._counts[owner.name] += 1
            number = self._counts[owner.name]
        place = Place(folder, "/".join(parents), f"{stem}_{number:05}_{suffix}")
        self._put(owner, place, data, suffix)
        return place

    def upload(self, owner: Owner, place: Place, data: bytes, *, overwrite: bool) -> Place:
        """Save an upload, renamed if the name is taken by different content."""
        taken = None if overwrite else self.read(owner, place)
        if taken not in (None, data):
            digest = hashlib.sha256(data).hexdigest()[:16]
            stem, dot, ending = place.name.rpartition(".")
            named = f"{stem} ({digest}).{ending}" if dot else f"{place.name} ({digest})"
            place = place._replace(name=named)
        self._put(owner, place, data, _suffix_of(data))
        return place

    def exists(self, owner: Owner, place: Place) -> bool:
        """Returns False for a file that is unknown, or known to have expired. Doesn't block."""
        name = self._name(owner, place)
        return name is not None and self._results.offers(name, owner.name, None)

    def locate(self, owner: Owner, place: Place) -> FileLocation | None:
        """Location of the file; None if it does not exist or has expired."""
        try:
            name = self._name(owner, place)
            return None if name is None else self._results.locate(name, owner.name)
        except Expired:
            return None

    def read(self, owner: Owner, place: Place) -> bytes | None:
        try:
            name = self._name(owner, place)
            return None if name is None else self._results.read(name, owner.name)
        except Expired:
            return None

    def uploads(self, owner: Owner) -> list[str]:
        """Names of uploads for LoadImage."""
        with self._lock:
            places = list(self._files[owner.name])
        named = (f"{place.subfolder}/{place.name}" for place in places if place.folder == "input")
        return sorted(name.lstrip("/") for name in named)

    def _name(self, owner: Owner, place: Place) -> str | None:
        with self._lock:
            return self._files[owner.name].get(place)

    def _put(self, owner: Owner, place: Place, data: bytes, suffix: str) -> None:
        result = self._results.add(data, suffix, owner.name)
        with self._lock:
            mine = self._files[owner.name]
            gone = [mine.pop(place, None)]
            mine[place] = result
            while len(mine) > MAX_FILES:
                gone.append(mine.popitem(last=False)[1])
        for old in gone:
            if old is not None:
                self._results.remove(old, owner.name)


def sane_parts(text: str) -> list[str]:
    """Split a name at slashes, without parts that are unsafe as file names."""
    parts = (_UNUSUAL.sub("_", part).strip()[:_MAX_NAME] for part in re.split(r"[/\\]", text))
    return [part for part in parts if part.strip(". ")][-4:]


def _suffix_of(data: bytes) -> str:
    """Suffix by content; the client's file name is not trusted."""
    for magic, suffix in _MAGIC.items():
        if data.startswith(magic):
            return suffix
    return ".webp" if data[8:12] == b"WEBP" else ".bin"
