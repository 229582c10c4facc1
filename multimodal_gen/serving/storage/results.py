"""Result files: written atomically, limited by age and each owner's total size, and linked to."""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from multimodal_gen.errors import Expired, NotFound, StorageUnavailable
from multimodal_gen.postprocess.files import write_atomically
from multimodal_gen.serving.owner import Owner, digest_of
from multimodal_gen.serving.storage.eviction import StorageUse, in_order, life_of
from multimodal_gen.serving.storage.failures import storing

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_GIGABYTE = 10**9
_MARK = "@"
"""Between the owner and the name of a file; no name contains it."""
_NOTICED_S = 1.0
"""A smaller jump changes no ages."""
ANYONE = Owner().name
"""Owner of all files where there are no keys."""
GONE = "the file was deleted: by its owner, by age, or for lack of space"
FileLocation = Path | str | bytes
"""A file here, a URL that is signed for a while, or the content itself."""


@dataclass(frozen=True)
class _Kept:
    path: Path
    owner: str
    size: int
    made_at: float


@dataclass
class _Share:
    """An owner's files by name, oldest first."""

    files: OrderedDict[str, _Kept] = field(default_factory=OrderedDict)
    size: int = 0


class ResultStore(Protocol):
    """Storage of result files. All methods may block, and are thread-safe; they raise StorageFull
    and StorageUnavailable. `owner` is the name under which a file was written."""

    ttl_s: float | None
    """Time that results are kept; None if until they are deleted or space is needed."""

    def write(self, name: str, data: bytes, owner: str = ANYONE) -> None:
        """Save `data` as `name`."""

    def add(self, data: bytes, suffix: str, owner: str = ANYONE) -> str:
        """Save `data` under a new name that ends in `suffix`; returns the name."""

    def read(self, name: str, owner: str = ANYONE) -> bytes:
        """Content of a file that was saved. Raises Expired."""

    def locate(self, name: str, owner: str = ANYONE) -> FileLocation:
        """Location of a file that was saved. Raises Expired."""

    def offers(self, name: str, owner: str, expires_at: float | None) -> bool:
        """Returns False if a job's file is known to have expired, without looking for it."""

    def link(self, name: str, owner: str = ANYONE) -> str:
        """Return an unguessable URL path for `name`, valid on every server of the store."""

    def linked(self, token: str, name: str) -> FileLocation:
        """Location of the file that a `link` refers to. Raises NotFound, Expired."""

    def remove(self, name: str, owner: str = ANYONE) -> None: ...

    def sweep(self) -> None:
        """Delete expired files, and those beyond quotas."""

    def use(self, owner: str = ANYONE) -> StorageUse:
        """Return how much of an owner's space is used, and what goes next."""

    def held(self) -> Collection[str] | None:
        """Return the names of all files; None while that is unknown. May be minutes old."""


class Results:
    """A ResultStore in a folder, which one server uses at a time. What is kept is known from
    memory, so no call looks through the folder."""

    def __init__(
        self,
        folder: Path,
        *,
        ttl_s: float | None = None,
        quota_gb: float = 20.0,
        clock: Callable[[], float] = time.time,
        jump: float = 0.0,
        starred: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        """`quota_gb` is each owner's; `jump` is how much younger files are than their time stamps
        say; `starred` returns the outputs that go last, each JOB-INDEX. Raises OSError."""
        self.ttl_s = ttl_s
        self._starred = starred
        self._folder = folder / "results"
        self._quota = int(quota_gb * _GIGABYTE)
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._shares: dict[str, _Share] = {}
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._secret = secret_of(folder)
        self._find(jump)
        self.sweep()

    def write(self, name: str, data: bytes, owner: str = ANYONE) -> None:
        """Save `data` as `name`, replacing any earlier file."""
        now = self._clock()
        path = self._folder / (_prefix(owner) + _checked(name))
        with storing():
            write_atomically(path, data, mode=0o600)
            os.utime(path, (now, now))
        with self._lock:
            self._hold(name, _Kept(path, _prefix(owner), len(data), now))
            self._shrink(self._shares[_prefix(owner)])

    def add(self, data: bytes, suffix: str, owner: str = ANYONE) -> str:
        name = f"{secrets.token_hex(16)}{suffix}"
        self.write(name, data, owner)
        return name

    def path(self, name: str) -> Path:
        """Path of a file that was saved. Raises Expired."""
        kept = self._kept.get(_checked(name))
        if kept is None or self._is_old(name, kept) or not kept.path.is_file():
            raise Expired(GONE)
        return kept.path

    def read(self, name: str, owner: str = ANYONE) -> bytes:
        return self.path(name).read_bytes()

    def locate(self, name: str, owner: str = ANYONE) -> FileLocation:
        return self.path(name)

    def offers(self, name: str, owner: str, expires_at: float | None) -> bool:
        try:
            self.path(name)
        except Expired:
            return False
        return True

    def link(self, name: str, owner: str = ANYONE) -> str:
        return f"/files/{self._token(_checked(name))}/{name}"

    def linked(self, token: str, name: str) -> Path:
        same = _NAME.fullmatch(name) and hmac.compare_digest(
            token.encode("utf-8", "replace"), self._token(name).encode()
        )
        if not same:
            raise NotFound("no such file")
        return self.path(name)

    def remove(self, name: str, owner: str = ANYONE) -> None:
        with self._lock:
            self._drop(_checked(name))

    def sweep(self) -> None:
        with self._lock:
            for share in list(self._shares.values()):
                for name in [
                    name for name, kept in share.files.items() if self._is_old(name, kept)
                ]:
                    self._drop(name)
                self._shrink(share)

    def use(self, owner: str = ANYONE) -> StorageUse:
        with self._lock:
            share = self._shares.get(_prefix(owner)) or _Share()
            sizes = {name: kept.size for name, kept in share.files.items()}
        return StorageUse.of(sizes, self._quota, self._starred())

    def held(self) -> Collection[str]:
        return frozenset(self._kept)

    def _is_old(self, name: str, kept: _Kept) -> bool:
        life = life_of(name, self.ttl_s)
        return life is not None and kept.made_at + life <= self._clock()

    def _find(self, jump: float) -> None:
        """Take up what an earlier server left."""
        for made_at, size, path in sorted(_files(self._folder)):
            if abs(jump) > _NOTICED_S:
                made_at += jump
                with contextlib.suppress(OSError):
                    os.utime(path, (made_at, made_at))
            owner, mark, name = path.name.rpartition(_MARK)
            self._hold(name, _Kept(path, owner + mark, size, made_at))
        for share in list(self._shares.values()):
            self._shrink(share)

    def _hold(self, name: str, kept: _Kept) -> None:
        self._let_go(name)
        share = self._shares.setdefault(kept.owner, _Share())
        self._kept[name] = share.files[name] = kept
        share.size += kept.size

    def _let_go(self, name: str) -> _Kept | None:
        """Forget a file, which stays in the folder."""
        if (kept := self._kept.pop(name, None)) is not None:
            share = self._shares[kept.owner]
            del share.files[name]
            share.size -= kept.size
            if not share.files:
                del self._shares[kept.owner]
        return kept

    def _drop(self, name: str) -> None:
        if (kept := self._let_go(name)) is not None:
            with contextlib.suppress(OSError):
                kept.path.unlink()

    def _shrink(self, share: _Share) -> None:
        """Delete an owner's outputs beyond the quota; later, while stars can't be read."""
        if share.size <= self._quota:
            return
        with contextlib.suppress(StorageUnavailable):
            for names in in_order(share.files, self._starred()):
                for name in names:
                    self._drop(name)
                if share.size <= self._quota:
                    return

    def _token(self, name: str) -> str:
        return hmac.new(self._secret, name.encode(), "sha256").hexdigest()[:32]


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Time, size and path of each file; half-written ones of a killed server are removed."""
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            with contextlib.suppress(OSError):
                os.unlink(entry)
        elif entry.is_file(follow_symlinks=False):
            stat = entry.stat(follow_symlinks=False)
            yield stat.st_mtime, stat.st_size, Path(entry.path)


def _prefix(owner: str) -> str:
    """Owner in a file's name, which must neither contain a key's name nor grow with it."""
    if owner == ANYONE:
        return ""
    return digest_of(owner) + _MARK


def _checked(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise NotFound("no such file")
    return name


def secret_of(folder: Path) -> bytes:
    """Read or create the secret of links, which is stored so that they survive a restart. Raises
    OSError."""
    path = folder / "secret"
    if not path.exists():
        write_atomically(path, secrets.token_bytes(32), mode=0o600)
    return path.read_bytes()
