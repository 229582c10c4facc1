"""Result files as objects, which all fronts of a ledger share."""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection

from multimodal_gen.errors import Expired, NotFound
from multimodal_gen.serving.owner import digest_of
from multimodal_gen.serving.storage.eviction import StorageUse, in_order, life_of
from multimodal_gen.serving.storage.objects import Objects, StoredObject
from multimodal_gen.serving.storage.results import ANYONE, GONE, FileLocation

log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_FOLDER = "results"
_GIGABYTE = 10**9
_SWEEP_S = 600.0
"""Interval of listing the store."""
_TOKEN = re.compile(r"([0-9a-f]{16})([0-9a-f]{32})")


class ObjectResults:
    """A ResultStore of objects `results/OWNER/NAME`, where OWNER is a digest.

    A name is written once: the file of a front that lost its job never replaces another's. Ages and
    sizes are the store's own: files are found, and old ones deleted, by listing it.
    """

    def __init__(
        self,
        objects: Objects,
        secret: bytes,
        *,
        ttl_s: float | None = None,
        quota_gb: float = 20.0,
        starred: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        """`secret` signs links; `quota_gb` is each owner's; `starred` returns the outputs that go
        last, each JOB-INDEX."""
        self._starred = starred
        self._listed: dict[str, dict[str, int]] | None = None
        """As of the last sweep: size of each file by owner's folder and name, oldest first."""
        self.ttl_s = ttl_s
        self._objects = objects
        self._secret = secret
        self._quota = int(quota_gb * _GIGABYTE)
        self._swept_at = -_SWEEP_S
        self._lock = threading.Lock()

    def write(self, name: str, data: bytes, owner: str = ANYONE) -> None:
        if not self._objects.put_new(_key(name, owner), data):
            log.info("%s was written before, and stays", name)
        elif self._listed is not None:
            self._listed.setdefault(f"{_FOLDER}/{digest_of(owner)}", {})[name] = len(data)

    def add(self, data: bytes, suffix: str, owner: str = ANYONE) -> str:
        name = f"{secrets.token_hex(16)}{suffix}"
        self.write(name, data, owner)
        return name

    def read(self, name: str, owner: str = ANYONE) -> bytes:
        key = _key(name, owner)
        self._check_age(key)
        return self._objects.get(key)

    def locate(self, name: str, owner: str = ANYONE) -> FileLocation:
        return self._locate(_key(name, owner))

    def offers(self, name: str, owner: str, expires_at: float | None) -> bool:
        return expires_at is None or time.time() < expires_at

    def link(self, name: str, owner: str = ANYONE) -> str:
        digest = digest_of(owner)
        _key(name, owner)
        return f"/files/{digest}{self._signature(digest, name)}/{name}"

    def linked(self, token: str, name: str) -> FileLocation:
        parts = _TOKEN.fullmatch(token)
        if parts is None or _NAME.fullmatch(name) is None:
            raise NotFound("no such file")
        digest, signature = parts.groups()
        if not hmac.compare_digest(signature, self._signature(digest, name)):
            raise NotFound("no such file")
        return self._locate(f"{_FOLDER}/{digest}/{name}")

    def remove(self, name: str, owner: str = ANYONE) -> None:
        self._objects.delete(_key(name, owner))
        if self._listed is not None:
            self._listed.get(f"{_FOLDER}/{digest_of(owner)}", {}).pop(name, None)

    def sweep(self) -> None:
        """Delete expired files and those beyond quotas, by listing the store every ten minutes."""
        with self._lock:
            if time.monotonic() - self._swept_at < _SWEEP_S:
                return
            self._swept_at = time.monotonic()
        shares: defaultdict[str, list[StoredObject]] = defaultdict(list)
        for stored in self._objects.list(_FOLDER):
            shares[stored.key.rpartition("/")[0]].append(stored)
        starred = self._starred()
        self._listed = {folder: self._shrunk(files, starred) for folder, files in shares.items()}

    def use(self, owner: str = ANYONE) -> StorageUse:
        sizes = (self._listed or {}).get(f"{_FOLDER}/{digest_of(owner)}", {})
        return StorageUse.of(sizes, self._quota, self._starred())

    def held(self) -> Collection[str] | None:
        if self._listed is None:
            return None
        return {name for sizes in self._listed.values() for name in sizes}

    def _shrunk(self, files: list[StoredObject], starred: Collection[str]) -> dict[str, int]:
        """Delete an owner's expired files, and outputs beyond the quota; return what is left."""
        known = {_name(stored): stored for stored in sorted(files, key=lambda s: s.modified_at)}
        sizes = {name: stored.size for name, stored in known.items()}
        gone = [name for name, stored in known.items() if self._is_old(stored)]
        left = {name: size for name, size in sizes.items() if name not in {*gone}}
        excess = sum(left.values()) - self._quota
        for names in in_order(left, starred):
            if excess <= 0:
                break
            gone += names
            excess -= sum(sizes[name] for name in names)
        for name in gone:
            self._objects.delete(known[name].key)
            del sizes[name]
        return sizes

    def _is_old(self, stored: StoredObject) -> bool:
        life = life_of(_name(stored), self.ttl_s)
        return life is not None and stored.modified_at + life <= time.time()

    def _check_age(self, key: str) -> None:
        try:
            stored = self._objects.stat(key)
        except FileNotFoundError:
            stored = None
        if stored is None or self._is_old(stored):
            raise Expired(GONE)

    def _locate(self, key: str) -> FileLocation:
        self._check_age(key)
        return self._objects.path(key) or self._objects.signed_url(key) or self._objects.get(key)

    def _signature(self, digest: str, name: str) -> str:
        return hmac.new(self._secret, f"{digest}/{name}".encode(), "sha256").hexdigest()[:32]


def _key(name: str, owner: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise NotFound("no such file")
    return f"{_FOLDER}/{digest_of(owner)}/{name}"


def _name(stored: StoredObject) -> str:
    return stored.key.rpartition("/")[2]
