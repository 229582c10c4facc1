"""Failures of the disk and of SQLite, as errors that tell clients what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator

from multimodal_gen.errors import MultimodalGenError, StorageFull, StorageUnavailable

LOCKED_RETRY_S = 1.0
RETRY_S = 10.0
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL = "database or disk is full"
_LOCKED = "locked"


@contextlib.contextmanager
def storing() -> Iterator[None]:
    """Raises StorageFull and StorageUnavailable in place of what the disk and SQLite raise."""
    try:
        yield
    except OSError as error:
        raise no_space(error) or unavailable(_reason(error), RETRY_S) from error
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):  # mistakes of this program
        raise
    except sqlite3.DatabaseError as error:
        text = str(error)
        if _FULL in text:
            raise full(text) from error
        raise unavailable(text, LOCKED_RETRY_S if _LOCKED in text else RETRY_S) from error


def no_space(error: OSError) -> MultimodalGenError | None:
    """StorageFull, if that is what the error means."""
    return full(_reason(error)) if error.errno in _NO_SPACE else None


def full(reason: str) -> MultimodalGenError:
    error = StorageFull(f"the server has no space left to store this: {reason}")
    error.retry_after_s = RETRY_S
    return error


def unavailable(reason: str, retry_after_s: float) -> MultimodalGenError:
    error = StorageUnavailable(f"the server can't store or read this now: {reason}")
    error.retry_after_s = retry_after_s
    return error


def _reason(error: OSError) -> str:
    """Without the path, which is the server's own affair."""
    return os.strerror(error.errno) if error.errno is not None else type(error).__name__
