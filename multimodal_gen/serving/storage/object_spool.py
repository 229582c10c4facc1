"""Input images of jobs as objects, which all fronts of a ledger share."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection

from multimodal_gen.messages.pictures import Pixels
from multimodal_gen.messages.request import Req
from multimodal_gen.serving.records import JobRecord
from multimodal_gen.serving.storage.objects import Objects
from multimodal_gen.serving.storage.persistence import STORAGE_ERRORS

log = logging.getLogger(__name__)
_FOLDER = "pictures"
_NEW_S = 3600.0
"""Images are stored before their job is: those of an unknown job are kept so long."""


class ObjectSpool:
    """A PictureStore of objects `pictures/JOB.NAME`."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def write(self, job_id: str, pictures: Pixels) -> None:
        for name, pixels in pictures.items():
            self._objects.put_new(_key(job_id, name), pixels.tobytes())

    def read(self, job_id: str, req: Req) -> Pixels:
        import numpy as np

        return {
            name: np.frombuffer(self._objects.get(_key(job_id, name)), np.uint8).reshape(
                header.shape
            )
            for name, header in req.pictures.items()
        }

    def remove(self, record: JobRecord) -> None:
        for name in record.request.requests[0].pictures:
            with contextlib.suppress(*STORAGE_ERRORS):
                self._objects.delete(_key(record.id, name))

    def keep_only(self, job_ids: Collection[str]) -> None:
        before = time.time() - _NEW_S
        for stored in self._objects.list(_FOLDER):
            job_id = stored.key.removeprefix(f"{_FOLDER}/").partition(".")[0]
            if job_id not in job_ids and stored.modified_at < before:
                self._objects.delete(stored.key)


def _key(job_id: str, name: str) -> str:
    return f"{_FOLDER}/{job_id}.{name}"
