"""Input images of jobs, on disk until the jobs end."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from multimodal_gen.messages.pictures import Pixels
from multimodal_gen.messages.request import Req
from multimodal_gen.postprocess.files import write_atomically
from multimodal_gen.serving.records import JobRecord
from multimodal_gen.serving.storage.failures import storing

log = logging.getLogger(__name__)


class PictureStore(Protocol):
    """Storage of input images. All methods may block."""

    def write(self, job_id: str, pictures: Pixels) -> None:
        """Raises StorageFull, StorageUnavailable."""

    def read(self, job_id: str, req: Req) -> Pixels:
        """Read the images that `req` lists. Raises OSError, ValueError, StorageUnavailable."""

    def remove(self, record: JobRecord) -> None:
        """Remove a job's images; those that can't be are left to `keep_only`."""

    def keep_only(self, job_ids: Collection[str]) -> None:
        """Remove images of other jobs, left when a server was killed."""


class Spool:
    """A PictureStore in a folder."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        self._folder = folder / "pictures"
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def write(self, job_id: str, pictures: Pixels) -> None:
        with storing():
            for name, pixels in pictures.items():
                write_atomically(self._path(job_id, name), pixels.tobytes(), mode=0o600)

    def read(self, job_id: str, req: Req) -> Pixels:
        import numpy as np

        return {
            name: np.fromfile(self._path(job_id, name), np.uint8).reshape(header.shape)
            for name, header in req.pictures.items()
        }

    def remove(self, record: JobRecord) -> None:
        for name in record.request.requests[0].pictures:
            with contextlib.suppress(OSError):
                self._path(record.id, name).unlink(missing_ok=True)

    def keep_only(self, job_ids: Collection[str]) -> None:
        try:
            found = [*self._folder.iterdir()]
        except OSError as error:
            log.warning("images of former jobs can't be removed: %s", error)
            return
        for path in found:
            if path.stem not in job_ids or path.suffix == ".tmp":
                try:
                    path.unlink()
                except OSError as error:
                    log.warning("%s can't be removed: %s", path, error.strerror)

    def _path(self, job_id: str, name: str) -> Path:
        return self._folder / f"{job_id}.{name}"
