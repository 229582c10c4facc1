"""A server's data folder, locked so that only one server uses it at a time."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.launch.private_folder import LOCK, PREFIX, remove_abandoned, take


class DataFolder:
    """A folder locked by this process until it is closed or the process ends."""

    def __init__(self, path: Path, *, temporary: bool = False) -> None:
        """Raises InvalidRequest if the folder can't be created or is locked."""
        self.path = path
        self._temporary = temporary
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise InvalidRequest("data_dir", str(path), f"{error.strerror}") from error
        if not take(self._lock):
            os.close(self._lock)
            allowed = "is in use by another server; give each server its own folder"
            raise InvalidRequest("data_dir", str(path), allowed)

    @classmethod
    def of(cls, args: ServerArgs) -> DataFolder:
        """The folder in `args`; without one, a folder that belongs to the port, or a temporary
        one."""
        if args.data_dir is not None:
            return cls(Path(args.data_dir).expanduser())
        if args.port:
            return cls(_user_data() / "multimodal_gen" / f"port-{args.port}")
        remove_abandoned(tempfile.gettempdir())
        return cls(Path(tempfile.mkdtemp(prefix=f"{PREFIX}data-")), temporary=True)

    def close(self) -> None:
        """Unlock the folder. A temporary one is removed."""
        if self._temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _user_data() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
