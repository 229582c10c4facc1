"""What the driver hears from the processes that it measures: JSON, one message a line."""

from __future__ import annotations

import msgspec

MEASUREMENTS_FILE = "MULTIMODAL_GEN_MEASUREMENTS_FILE"
"""The environment variable that names the file which a timed rank writes."""


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Load a checkpoint's folder with DiffusionPipeline.from_pretrained."""

    folder: str
    device: str
    dtype: str


class Run(msgspec.Struct, frozen=True, tag="run", kw_only=True):
    """Make a picture of each prompt, in one call (`as_batch`) or one after another."""

    prompts: list[str]
    seeds: list[int]
    settings: dict[str, int | float | str]
    """Keywords of the pipeline's call."""
    as_batch: bool = False


class BaselineReady(msgspec.Struct, frozen=True, tag="loaded"):
    threads: int
    versions: dict[str, str]


class Ran(msgspec.Struct, frozen=True, tag="ran"):
    seconds: float


Question = Load | Run
Answer = BaselineReady | Ran


class Gap(msgspec.Struct, frozen=True):
    """From the end of one evaluation to the start of the next of the same batch."""

    requests: int
    across_plans: bool
    seconds: float
    """Without the solvers' own work."""


class RankMeasurements(msgspec.Struct, frozen=True, kw_only=True):
    """What a timed rank wrote down."""

    gaps: list[Gap]
    weight_bytes: int
    """Of all components, in the dtype they are kept in."""
    anonymous_before: int
    """Anonymous memory in bytes, just before the checkpoint was opened."""
    anonymous_peak: int
    """The most while it was loaded."""
