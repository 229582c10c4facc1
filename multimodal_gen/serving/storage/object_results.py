"""Result files as objects, which all fronts of a ledger share."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from collections import defaultdict

from multimodal_gen.errors import Expired, NotFound
from multimodal_gen.serving.storage.objects import Objects, StoredObject
from multimodal_gen.serving.storage.results import ANYONE, FileLocation

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
        self, objects: Objects, secret: bytes, *, ttl_s: float = 86400.0, quota_gb: float = 20.0
    ) -> None:
        """`secret` signs links; `quota_gb` is each owner's."""
        self.ttl_s = ttl_s
        self._objects = objects
        self._secret = secret
        self._quota = int(quota_gb * _GIGABYTE)
        self._swept_at = -_SWEEP_S
        self._lock = threading.Lock()

    def write(self, name: str, data: bytes, owner: str = ANYONE) -> None:
        if not self._objects.put_new(_key(name, owner), data):
            log.info("%s was written before, and stays", name)

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
        digest = _digest(owner)
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

    def sweep(self) -> None:
        """Delete expired files and those beyond quotas, by listing the store every ten minutes."""
        with self._lock:
            if time.monotonic() - self._swept_at < _SWEEP_S:
                return
            self._swept_at = time.monotonic()
        shares: defaultdict[str, list[StoredObject]] = defaultdict(list)
        for stored in self._objects.list(_FOLDER):
            shares[stored.key.rpartition("/")[0]].append(stored)
        for files in shares.values():
            for stored in self._superfluous(files):
                self._objects.delete(stored.key)

    def _superfluous(self, files: list[StoredObject]) -> list[StoredObject]:
        """Expired files, and an owner's oldest beyond the quota, but not the newest one."""
        files = sorted(files, key=lambda stored: stored.modified_at)
        left, gone = sum(stored.size for stored in files), []
        for stored in files[:-1]:
            if left > self._quota or self._is_old(stored):
                gone.append(stored)
                left -= stored.size
        return gone + [stored for stored in files[-1:] if self._is_old(stored)]

    def _is_old(self, stored: StoredObject) -> bool:
        return stored.modified_at + self.ttl_s <= time.time()

    def _check_age(self, key: str) -> None:
        try:
            stored = self._objects.stat(key)
        except FileNotFoundError:
            stored = None
        if stored is None or self._is_old(stored):
            raise Expired("the file was deleted: results are only kept for a limited time")

    def _locate(self, key: str) -> FileLocation:
        self._check_age(key)
        return self._objects.path(key) or self._objects.signed_url(key) or self._objects.get(key)

    def _signature(self, digest: str, name: str) -> str:
        return hmac.new(self._secret, f"{digest}/{name}".encode(), "sha256").hexdigest()[:32]


def _key(name: str, owner: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise NotFound("no such file")
    return f"{_FOLDER}/{_digest(owner)}/{name}"


def _digest(owner: str) -> str:
    """Owner in a key, which must neither contain a key's name nor grow with it."""
    return hashlib.sha256(owner.encode("utf-8", "replace")).hexdigest()[:16]
