"""What disks and other programs do to a server's data folder."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from multimodal_gen.serving.storage import results, spool, sqlite_ledger
from multimodal_gen.serving.storage.failures import storing


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Another program writes to the ledger."""
    with contextlib.closing(sqlite3.connect(folder / "jobs.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def full() -> Iterator[None]:
    """No space is left, for files and for SQLite."""

    @contextlib.contextmanager
    def writing(_: object) -> Iterator[None]:
        with storing():
            raise sqlite3.OperationalError("database or disk is full")
        yield

    def write(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_ledger.SqliteLedger, "_writing", writing)
        for module in (results, spool):
            patch.setattr(module, "write_atomically", write)
        yield


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[bool]:
    """A new folder, which is a disk of its own where that is allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    try:
        allowed = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        allowed = False
    try:
        yield allowed
    finally:
        if allowed:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A small disk; skips the test where none can be mounted."""
    with mounted(folder, "1m") as allowed:
        if not allowed:
            pytest.skip("no disk can be mounted here")
        yield folder


def fill(folder: Path) -> Path:
    """Take all space that is left; returns the file to remove."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
    return path
