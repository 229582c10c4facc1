"""A server's data folder, locked so that only one server uses it at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.launch.private_folder import LOCK, PREFIX, remove_abandoned, take

_FOLDERS = frozenset({"pictures", "results"})
_LEDGER = frozenset({"jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm"})
_FILES = _LEDGER | {LOCK, "clock", "secret"}


class DataFolder:
    """A folder locked by this process until it is closed or the process ends."""

    def __init__(self, path: Path, *, temporary: bool = False) -> None:
        """Raises InvalidRequest if the folder can't be created or used, or is locked."""
        self.path = path
        self._temporary = temporary
        with usable(path):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        if not take(self._lock):
            os.close(self._lock)
            allowed = "is in use by another server; give each server its own folder"
            raise InvalidRequest("data_dir", str(path), allowed)
        with usable(path):
            _make_private(path)

    @classmethod
    def of(cls, args: ServerArgs) -> DataFolder:
        """The folder in `args`; without one, a folder that belongs to the port, or a temporary
        one."""
        if args.data_dir is not None:
            with usable(Path(args.data_dir)):
                path = user_path(args.data_dir)
            return cls(path)
        if args.port:
            return cls(_user_data() / "multimodal_gen" / f"port-{args.port}")
        remove_abandoned(tempfile.gettempdir())
        return cls(Path(tempfile.mkdtemp(prefix=f"{PREFIX}data-")), temporary=True)

    def close(self) -> None:
        """Unlock the folder. A temporary one is removed."""
        if self._temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


@contextlib.contextmanager
def usable(path: Path) -> Iterator[None]:
    """Raises InvalidRequest in place of the errors of a folder that can't be used."""
    try:
        yield
    except OSError as error:
        raise InvalidRequest("data_dir", str(path), _reason(path, error)) from error
    except ValueError as error:  # a NUL
        raise InvalidRequest("data_dir", str(path), str(error)) from error


def _reason(path: Path, error: OSError) -> str:
    named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
    if named == path:
        return f"must be a folder to write to: {error.strerror}"
    return f"must be a folder to write to: {named}: {error.strerror}"


def _make_private(folder: Path) -> None:
    """Close what an earlier version left readable for others. The folder itself may be shared with
    other programs: then only what is ours."""
    own = True
    for entry in os.scandir(folder):
        if entry.name in _FOLDERS and entry.is_dir(follow_symlinks=False):
            _restrict(entry.path, 0o700)
            for file in os.scandir(entry.path):
                if file.is_file(follow_symlinks=False):
                    _restrict(file.path, 0o600)
        elif entry.name in _FILES and entry.is_file(follow_symlinks=False):
            _restrict(entry.path, 0o600)
        else:
            own = False
    if own:
        _restrict(str(folder), 0o700)


def _restrict(path: str, mode: int) -> None:
    with contextlib.suppress(OSError):  # another user's
        if os.stat(path).st_mode & 0o777 & ~mode:
            os.chmod(path, mode)


def _user_data() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
