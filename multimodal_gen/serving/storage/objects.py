"""Objects in S3, Google Cloud Storage, Azure or a shared folder: written once, under short keys."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store

from multimodal_gen.configs.redacted_url import redacted
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.serving.storage.failures import RETRY_S, no_space, unavailable

log = logging.getLogger(__name__)
_CLIENT: Any = {"timeout": "30s", "connect_timeout": "5s"}
_RETRIES: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
SIGNED_S = 3600
"""Validity of a signed URL."""


@dataclass(frozen=True)
class StoredObject:
    key: str
    size: int
    modified_at: float
    """Seconds since 1970, by the store's clock."""


class Objects:
    """Objects below one URL. All methods may block, are thread-safe, and raise StorageFull and
    StorageUnavailable."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @classmethod
    def at(cls, url: str) -> Objects:
        """Objects at `s3://…`, `gs://…`, `az://…` or `file://…`; credentials come from the
        environment, as each provider's tools read them. Raises InvalidRequest."""
        try:
            objects = cls(_store_at(url))
            next(obstore.list(objects._store, "results"), None)
            return objects
        except (BaseError, ValueError, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise InvalidRequest("results", redacted(url), f"can't be used: {reason}") from error

    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object; returns False if there is one, which stays as it is."""
        with _storing():
            try:
                obstore.put(self._store, key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    def get(self, key: str) -> bytes:
        """Content of an object. Also raises FileNotFoundError."""
        with _storing():
            return bytes(obstore.get(self._store, key).bytes())

    def stat(self, key: str) -> StoredObject:
        """Also raises FileNotFoundError."""
        with _storing():
            return _stored(obstore.head(self._store, key))

    def delete(self, key: str) -> None:
        """Delete an object, if there is one."""
        with _storing(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, key)

    def list(self, folder: str) -> Iterator[StoredObject]:
        """All objects whose keys begin with `folder/`."""
        with _storing():
            for batch in obstore.list(self._store, folder):
                yield from map(_stored, batch)

    def path(self, key: str) -> Path | None:
        """File of an object that is stored in a folder."""
        if isinstance(self._store, LocalStore) and self._store.prefix is not None:
            return Path(self._store.prefix) / key
        return None

    def signed_url(self, key: str) -> str | None:
        """URL from which anyone can read an object for a while; None if the store, or these
        credentials, can't sign."""
        if not isinstance(self._store, S3Store | GCSStore | AzureStore):
            return None
        try:
            return obstore.sign(self._store, "GET", key, timedelta(seconds=SIGNED_S))
        except BaseError:  # such as a role that may not sign
            return None


def _store_at(url: str) -> ObjectStore:
    scheme = urlsplit(url).scheme
    if scheme == "file":
        folder = Path(url2pathname(urlsplit(url).path))
        if not folder.is_absolute():
            raise ValueError("file:// must be followed by an absolute path")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return LocalStore(folder)
    return obstore.store.from_url(url, client_options=_CLIENT, retry_config=_RETRIES)


def _stored(meta: Any) -> StoredObject:
    return StoredObject(meta["path"], meta["size"], meta["last_modified"].timestamp())


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, AlreadyExistsError):
        raise
    except OSError as error:
        raise no_space(error) or unavailable(str(error), RETRY_S) from error
    except BaseError as error:
        raise _meaning(error) from error


def _meaning(error: BaseError) -> Exception:
    text = str(error).partition("\n")[0]
    if "No space left" in text or "os error 28" in text:
        return no_space(OSError(28, "")) or error
    log.warning("the object store can't be used: %s", redacted(text))
    return unavailable("its object store can't be used", RETRY_S)
