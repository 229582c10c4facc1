"""Starts what needs the device that only pretends, which must be there before the package is."""

import json
import os
import subprocess
import sys
from typing import Any

from places import HELPERS, python_path


def run_on_device(script: str, *arguments: str) -> Any:
    """What the script of these tests prints, in JSON."""
    ended = subprocess.run(
        [sys.executable, str(HELPERS / script), *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=900,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": python_path()},
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)
