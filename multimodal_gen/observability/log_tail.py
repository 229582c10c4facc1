"""The last lines of this process's log, for the operator's page."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

MOST_LINES, LONGEST = 500, 2000


class LogTail(logging.Handler):
    """Keeps the newest entries that are logged; long ones, such as tracebacks, without their
    middle."""

    def __init__(self) -> None:
        super().__init__()
        self._entries: deque[str] = deque(maxlen=MOST_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        entry = self.format(record)
        if len(entry) > LONGEST:
            entry = f"{entry[: LONGEST // 2]} … {entry[-LONGEST // 2 :]}"
        self._entries.append(entry)

    @property
    def entries(self) -> Sequence[str]:
        """Oldest first."""
        return [*self._entries]


LOG_TAIL = LogTail()
"""Of this process: `configure_logging` attaches it."""
