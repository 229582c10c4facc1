"""Messages between the driver and the measured processes: JSON, one per line."""

from __future__ import annotations

import msgspec

MEASUREMENTS_FILE = "MULTIMODAL_GEN_MEASUREMENTS_FILE"
"""Environment variable with the path of the file that a timed rank writes."""


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Load a checkpoint's folder with DiffusionPipeline.from_pretrained."""

    folder: str
    device: str
    dtype: str


class Run(msgspec.Struct, frozen=True, tag="run", kw_only=True):
    """Generate one image per prompt, in one call (`as_batch`) or one after another."""

    prompts: list[str]
    seeds: list[int]
    settings: dict[str, int | float | str]
    """Keyword arguments of the pipeline's call."""
    as_batch: bool = False


class BaselineReady(msgspec.Struct, frozen=True, tag="loaded"):
    threads: int
    versions: dict[str, str]


class Ran(msgspec.Struct, frozen=True, tag="ran"):
    seconds: float


Question = Load | Run
Answer = BaselineReady | Ran


class Gap(msgspec.Struct, frozen=True):
    """Time from the end of one evaluation to the start of the next of the same batch."""

    requests: int
    across_plans: bool
    seconds: float
    """Includes guidance and the solvers' own work."""


class RankMeasurements(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements that a timed rank recorded."""

    gaps: list[Gap]
    weight_bytes: int
    """Bytes of all components in their loaded dtype."""
    anonymous_before: int
    """Bytes of anonymous memory just before the checkpoint was opened."""
    anonymous_peak: int
    """Peak bytes while loading."""
