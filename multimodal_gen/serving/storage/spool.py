"""Input images of jobs, on disk until the jobs end."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from multimodal_gen.messages.pictures import Pixels
from multimodal_gen.messages.request import Req
from multimodal_gen.postprocess.files import write_atomically


class Spool:
    """Folder of stored images. All methods may block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "pictures"
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def write(self, job_id: str, pictures: Pixels) -> None:
        for name, pixels in pictures.items():
            write_atomically(self._path(job_id, name), pixels.tobytes())

    def read(self, job_id: str, req: Req) -> Pixels:
        """Read the images that `req` lists. Raises OSError."""
        import numpy as np

        return {
            name: np.fromfile(self._path(job_id, name), np.uint8).reshape(header.shape)
            for name, header in req.pictures.items()
        }

    def remove(self, job_id: str) -> None:
        for path in self._folder.glob(f"{job_id}.*"):
            path.unlink(missing_ok=True)

    def keep_only(self, job_ids: Collection[str]) -> None:
        """Remove images of other jobs, left when a server was killed."""
        for path in self._folder.iterdir():
            if path.stem not in job_ids or path.suffix == ".tmp":
                path.unlink()

    def _path(self, job_id: str, name: str) -> Path:
        return self._folder / f"{job_id}.{name}"
