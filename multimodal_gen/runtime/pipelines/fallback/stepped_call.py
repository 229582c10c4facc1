"""Runs a function step by step, on a thread of its own that alternates with the caller."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

Pause = Callable[[Any], None]
"""Called by the function between two steps, with a value for its owner."""


class SteppedCall:
    """Runs `function(pause)` alternately with its owner; never both at once.

    The thread ends with the function, or when this object is garbage-collected: then `pause` does
    not return, and everything the function holds is freed before the reference is gone.
    """

    def __init__(self, function: Callable[[Pause], Any]) -> None:
        self._turns = _Turns()
        thread = threading.Thread(target=self._turns.run, args=(function,), daemon=True)
        thread.start()
        weakref.finalize(self, _end, self._turns, thread)

    @property
    def ended(self) -> bool:
        return self._turns.ended

    def resume(self) -> Any:
        """Run to the next pause and return its value, or to the end and return the result.

        Raises the function's exception, also on repeated calls.
        """
        turns = self._turns
        if not turns.ended:
            turns.value = None
            turns.go.release()
            turns.stopped.acquire()
        if turns.error is not None:
            raise turns.error
        return turns.value


class _Turns:
    """State shared by both sides. It holds a reference to neither."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.stopped = threading.Semaphore(0)
        self.value: Any = None
        self.error: BaseException | None = None
        self.ended = False
        self.dropped = False

    def run(self, function: Callable[[Pause], Any]) -> None:
        try:
            self._wait()
            self.value = function(self._pause)
        except _Dropped:
            pass
        except BaseException as error:  # raised again in the owner's thread
            self.error = error
        self.ended = True
        self.stopped.release()

    def _pause(self, value: Any) -> None:
        self.value = value
        del value
        self.stopped.release()
        self._wait()

    def _wait(self) -> None:
        self.go.acquire()
        if self.dropped:
            raise _Dropped


class _Dropped(BaseException):
    """Unwinds the function; not an Exception, which the function might catch."""


def _end(turns: _Turns, thread: threading.Thread) -> None:
    turns.dropped = True
    turns.go.release()
    thread.join()
    turns.value = turns.error = None
