"""Common parts of an engine's processes: arguments from stdin, and an end with the parent.

Standard input stays open while the parent lives; when it closes, the process exits.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from typing import TypeVar

import msgspec

from multimodal_gen.messages.rank_args import ProcessArgs

FILES = 2
"""Maximum number of files that they create in their folder: two sockets."""

Args = TypeVar("Args", bound=ProcessArgs)


def read_arguments(kind: type[Args]) -> Args:
    """Read this process's arguments, and watch its parent from then on."""
    size = int.from_bytes(sys.stdin.buffer.read(4), "big")
    args = msgspec.msgpack.decode(sys.stdin.buffer.read(size), type=kind)
    threading.Thread(target=end_with_parent, args=(args.socket_folder,), daemon=True).start()
    return args


def end_with_parent(socket_folder: str) -> None:
    """Wait until standard input closes; then remove the folder and exit."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    for _ in range(FILES + 1):  # Each file may have been created during the removal.
        shutil.rmtree(socket_folder, ignore_errors=True)
    os._exit(0)
