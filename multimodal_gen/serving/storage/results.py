"""Result files: written atomically, limited by age and total size, and linked to."""

from __future__ import annotations

import hmac
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from multimodal_gen.errors import Expired, NotFound
from multimodal_gen.postprocess.files import write_atomically

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_GIGABYTE = 10**9


class Results:
    """Result files in a folder. All methods may block, and are thread-safe."""

    def __init__(
        self,
        folder: Path,
        *,
        ttl_s: float = 86400.0,
        quota_gb: float = 20.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ttl_s = ttl_s
        self._folder = folder / "results"
        self._quota = int(quota_gb * _GIGABYTE)
        self._clock = clock
        self._lock = threading.Lock()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for left in self._folder.glob(".*.tmp"):  # left by a server that was killed
            left.unlink()
        self._secret = _secret(folder / "secret")
        self.sweep()

    def write(self, name: str, data: bytes) -> None:
        """Save `data` as `name`, replacing any earlier file."""
        path = self._folder / _checked(name)
        write_atomically(path, data)
        os.utime(path, (self._clock(), self._clock()))
        self.sweep(keep=path)

    def add(self, data: bytes, suffix: str) -> str:
        """Save `data` under a new name that ends in `suffix`; returns the name."""
        name = f"{secrets.token_hex(16)}{suffix}"
        self.write(name, data)
        return name

    def path(self, name: str) -> Path:
        """Path of a file that was saved. Raises Expired."""
        path = self._folder / _checked(name)
        try:
            expired = path.stat().st_mtime + self.ttl_s <= self._clock()
        except FileNotFoundError:
            expired = True
        if expired:
            raise Expired("the file was deleted: results are only kept for a limited time")
        return path

    def link(self, name: str) -> str:
        """Return an unguessable URL path for `name`."""
        return f"/files/{self._token(_checked(name))}/{name}"

    def linked(self, token: str, name: str) -> Path:
        """Path of the file that a `link` refers to. Raises NotFound, Expired."""
        same = _NAME.fullmatch(name) and hmac.compare_digest(
            token.encode("utf-8", "replace"), self._token(name).encode()
        )
        if not same:
            raise NotFound("no such file")
        return self.path(name)

    def remove(self, name: str) -> None:
        (self._folder / _checked(name)).unlink(missing_ok=True)

    def sweep(self, keep: Path | None = None) -> None:
        """Delete expired files, then the oldest while the total exceeds the quota; never `keep`."""
        with self._lock:
            files = sorted(_files(self._folder))
            total = sum(size for _, size, _ in files)
            for made_at, size, path in files:
                old = made_at + self.ttl_s <= self._clock()
                if path != keep and (old or total > self._quota):
                    path.unlink(missing_ok=True)
                    total -= size

    def _token(self, name: str) -> str:
        return hmac.new(self._secret, name.encode(), "sha256").hexdigest()[:32]


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    found = []
    for entry in os.scandir(folder):
        if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
            stat = entry.stat(follow_symlinks=False)
            found.append((stat.st_mtime, stat.st_size, Path(entry.path)))
    return found


def _checked(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise NotFound("no such file")
    return name


def _secret(path: Path) -> bytes:
    """Read or create the secret; it is stored so that links survive a restart."""
    if not path.exists():
        write_atomically(path, secrets.token_bytes(32))
        path.chmod(0o600)
    return path.read_bytes()
