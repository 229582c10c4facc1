"""Compiles graphs in a process of its own, and waits for its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading

import msgspec

from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.runtime.compiling import DONE, CompileArgs

COMMAND = (sys.executable, "-m", "multimodal_gen.runtime.compiling")
LONGEST_S = 3600.0
_MOST_TOLD = 500
"""Bytes of what the process says, its last line."""


def compile_apart(args: CompileArgs) -> None:
    """Compile graphs into the cache on disk. Raises MultimodalGenError, with the reason, if the
    process fails, is killed, or does not end in time.

    What it says goes to a file, not a pipe: a process that the compiler started could hold that
    open after its end. All of these end with it.
    """
    with tempfile.TemporaryFile() as told:
        status = _run(msgspec.msgpack.encode(args), told.fileno())
        told.seek(max(0, told.seek(0, os.SEEK_END) - _MOST_TOLD))
        lines = told.read().decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    if status < 0:
        raise MultimodalGenError(f"the compiler was ended by {signal.Signals(-status).name}")
    if status or last != DONE:
        raise MultimodalGenError(f"the compiler ended with status {status}: {last!r}")


def _run(encoded: bytes, output: int) -> int:
    """Exit status; the number of the signal, negative, if one ended it."""
    child = subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert child.stdin is not None
    timer = threading.Timer(LONGEST_S, _kill, (child,))
    timer.daemon = True
    timer.start()
    try:
        # The pipe stays open, as the process ends when this one does. Writing to one that has ended
        # fails; its status is what counts.
        with contextlib.suppress(OSError):
            child.stdin.write(len(encoded).to_bytes(4, "big") + encoded)
            child.stdin.flush()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    finally:
        timer.cancel()
        _kill(child)  # with the processes that it has left, before its number can be another's
        with contextlib.suppress(OSError):
            child.stdin.close()
        status = child.wait()
    return status


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
