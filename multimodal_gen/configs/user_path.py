"""Paths that a user names."""

from __future__ import annotations

import os
from pathlib import Path

UserPath = str | os.PathLike[str]


def user_path(path: UserPath) -> Path:
    """`path`, where `~` is the home folder; `~name` of a user that is not known stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
