"""Starts the ranks of a group, each a process with a script of these tests."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from places import HELPERS, python_path


def run_ranks(script: str, world_size: int, store: Path, *arguments: str) -> list[str]:
    """What each rank prints; `script` gets RANK WORLD_SIZE STORE and the arguments."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": python_path()}
    ranks = [
        subprocess.Popen(
            [
                sys.executable,
                str(HELPERS / script),
                str(rank),
                str(world_size),
                str(store),
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(world_size)
    ]
    try:
        outputs = [rank.communicate(timeout=300) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
    for rank, (_, errors) in zip(ranks, outputs, strict=True):
        assert rank.returncode == 0, errors
    return [output for output, _ in outputs]


def say_and_leave(result: object) -> NoReturn:
    """End a rank as the engine does: threads of gloo that still hold a tensor of Python's abort an
    interpreter that finishes."""
    print(json.dumps(result), flush=True)
    os._exit(0)
