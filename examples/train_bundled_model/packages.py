"""The public packages that everything is made of: fetched by name and version, and unpacked."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

REGISTRY = "https://registry.npmjs.org"


class Package(NamedTuple):
    name: str
    version: str
    license: str
    use: str


ARTWORK = Package("@iconify-json/fluent-emoji-flat", "1.2.6", "MIT", "all pictures")
NAMES = Package("unicode-emoji-json", "0.9.0", "MIT", "names and groups")
KEYWORDS = Package("emojilib", "4.0.3", "MIT", "keywords")
TAGS = Package("emojibase-data", "17.0.0", "MIT", "keywords")
WORDS = Package("an-array-of-english-words", "2.0.0", "MIT", "words that mean nothing here")
PACKAGES = (ARTWORK, NAMES, KEYWORDS, TAGS, WORDS)


def fetch(folder: Path) -> None:
    """Put every package into `folder`; those that are there already are kept."""
    for package in PACKAGES:
        if not path_of(folder, package).exists():
            _unpack(_download(package), path_of(folder, package))


def path_of(folder: Path, package: Package) -> Path:
    return folder / f"{package.name.split('/')[-1]}-{package.version}"


def read_json(folder: Path, package: Package, file: str) -> Any:
    return json.loads((path_of(folder, package) / file).read_text(encoding="utf-8"))


def _download(package: Package) -> bytes:
    """The package's archive. Raises ValueError when it is not what the registry says it is."""
    listing = f"{REGISTRY}/{package.name.replace('/', '%2F')}/{package.version}"
    with urllib.request.urlopen(listing, timeout=60) as reply:
        dist = json.load(reply)["dist"]
    with urllib.request.urlopen(dist["tarball"], timeout=300) as reply:
        archive: bytes = reply.read()
    algorithm, digest = dist["integrity"].split("-", 1)
    if base64.b64encode(hashlib.new(algorithm, archive).digest()).decode() != digest:
        raise ValueError(f"{package.name} {package.version}: the archive's {algorithm} is wrong")
    return archive


def _unpack(archive: bytes, folder: Path) -> None:
    """Its JSON files, with the folder that all archives begin with left out."""
    partial = folder.with_name(f"{folder.name}.partial")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar.getmembers():
            if member.isfile() and member.name.endswith(".json"):
                member.name = member.name.split("/", 1)[1]
                tar.extract(member, partial, filter="data")
    partial.rename(folder)
