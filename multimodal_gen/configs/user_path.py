"""Paths that a user names."""

from __future__ import annotations

from pathlib import Path


def user_path(path: str) -> Path:
    """`path`, where `~` is the home folder; `~name` of a user that is not known stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
