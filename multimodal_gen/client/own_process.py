"""Tells a process from those forked from it."""

from __future__ import annotations

import os

from multimodal_gen.errors import EngineNotReady


class OwnProcess:
    """The process that made an object. A forked one has the object, but none of its threads."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def is_this(self) -> bool:
        return os.getpid() == self._pid

    def check(self) -> None:
        """Raise EngineNotReady in a forked process."""
        if not self.is_this:
            raise EngineNotReady(
                f"this generator belongs to process {self._pid}, from which this one was forked; "
                "make one here with DiffusionGenerator.connect(address), where `address` is the "
                "other's"
            )
