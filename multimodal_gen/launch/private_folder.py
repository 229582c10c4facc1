"""Temporary folders that are locked while their process lives, so that a later start can tell and
remove those that killed processes left."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO

from multimodal_gen.errors import MultimodalGenError

PREFIX = "multimodal-gen-"
LOCK = "lock"
_LONGEST_SOCKET = 103
"""Maximum bytes of a Unix socket's path (macOS; Linux has 107)."""
_FALLBACK = "/tmp"


class PrivateFolder:
    """A new folder (0700) that this process holds by a lock until it removes it or ends."""

    def __init__(self, *, longest_name: int) -> None:
        """Create it where a socket with a name of `longest_name` bytes has a valid path, and remove
        abandoned ones there. Raises MultimodalGenError."""
        parent = _parent(longest_name)
        remove_abandoned(parent)
        lock = None
        while lock is None:  # Another start may have taken the unlocked folder for abandoned.
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            lock = _new_lock(self.path / LOCK)
        self._lock = lock

    def remove(self) -> None:
        """Remove and unlock it. Any thread can call this, and again."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def remove_abandoned(parent: str) -> None:
    """Remove this user's folders in `parent` whose lock no process holds."""
    for folder in Path(parent).glob(f"{PREFIX}*"):
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        if os.fstat(lock).st_uid == os.getuid() and take(lock):
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def take(lock: int) -> bool:
    """Lock an open file; returns False if another process holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _new_lock(path: Path) -> BinaryIO | None:
    """Create a lock and take it; None if `remove_abandoned` of another process came between."""
    lock = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "rb+")
    if take(lock.fileno()) and path.exists():
        return lock
    lock.close()
    return None


def _parent(longest_name: int) -> str:
    """The folder of temporary files, or another if it would make the paths too long."""
    wanted = tempfile.gettempdir()
    room = _LONGEST_SOCKET - longest_name - len(f"//{PREFIX}12345678")
    for folder in (wanted, _FALLBACK):
        if len(os.fsencode(folder)) <= room and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise MultimodalGenError(
        f"TMPDIR={wanted!r}: must have at most {room} bytes, since the engine's sockets lie in it, "
        f"and {_FALLBACK} can't be written"
    )
