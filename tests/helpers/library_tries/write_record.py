"""Runs all trials and writes down how far they are from diffusers' own calls."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from library_tries import RECORD, TRIALS
from library_tries.compared import difference


def _measured(name: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return difference(name, Path(folder) / name)


if __name__ == "__main__":
    RECORD.parent.mkdir(exist_ok=True)
    record = {name: _measured(name) for name in sorted(TRIALS)}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
