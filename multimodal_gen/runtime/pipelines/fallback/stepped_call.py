"""A function that runs one step at a time: on a thread of its own, which has control by turns."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

Pause = Callable[[Any], None]
"""What the function calls between two steps, with what its owner is to see."""


class SteppedCall:
    """Calls `function(pause)`, and hands control to it and back; never do both sides run.

    The thread ends when the function does, or when this object is no longer referred to: then
    `pause` does not return, and what the function holds is freed before the reference is gone.
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
        """Run to the next pause and return what it gave, or to the end and return the result.

        Raises what the function raised, again each time.
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
    """What both sides share. It keeps neither of them alive."""

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
        except BaseException as error:  # the owner's to deal with, in its own thread
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
    """Unwinds the function; not an Exception, which it could take for one of its own."""


def _end(turns: _Turns, thread: threading.Thread) -> None:
    turns.dropped = True
    turns.go.release()
    thread.join()
    turns.value = turns.error = None
