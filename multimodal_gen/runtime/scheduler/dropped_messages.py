"""Counts what a socket received and could not use."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)


class DroppedMessages:
    """Counts dropped messages; logs the first and every hundredth, so that a flood fills no log."""

    def __init__(self, where: str) -> None:
        self._where = where
        self.count = 0

    def add(self, reason: str) -> None:
        if self.count % 100 == 0:
            log.warning("dropped a message at %s (%d before): %s", self._where, self.count, reason)
        self.count += 1
