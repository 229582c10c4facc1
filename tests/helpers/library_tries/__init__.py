"""Tiny pipelines of diffusers that the fallback runs, and what was seen of them.

`python tests/helpers/library_tries/write_record.py` runs them all and writes `RECORD`.
"""

from collections.abc import Mapping
from pathlib import Path

from .images import IMAGES
from .trial import Trial
from .unets import UNETS
from .videos import VIDEOS

TRIALS: Mapping[str, Trial] = {**UNETS, **IMAGES, **VIDEOS}
RECORD = Path(__file__).parents[3] / "docs" / "_data" / "library_tries.json"
"""By pipeline, the largest difference of a pixel from diffusers' own call, of 255."""
