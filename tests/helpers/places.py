"""Where things are in this repository."""

import os
from pathlib import Path

HELPERS = Path(__file__).parent
FAULTS_FOLDER = HELPERS / "faults"
ROOT = HELPERS.parent.parent


def python_path(*folders: Path) -> str:
    """PYTHONPATH of a process that finds these folders, and the package."""
    return os.pathsep.join(map(str, (*folders, ROOT)))
