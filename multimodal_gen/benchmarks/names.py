"""Names that `bench` takes, in a module of their own so that `--help` loads nothing else."""

from __future__ import annotations

from typing import Literal

MeasureName = Literal[
    "one_picture",
    "concurrent",
    "short_job",
    "host_gap",
    "qualities",
    "families",
    "help",
    "cold_start",
    "memory",
    "options",
    "real_size",
]
LONG: tuple[MeasureName, ...] = ("families", "real_size")
"""Measures that are only taken if they are named: they need minutes and gigabytes."""
Scale = Literal["full", "shallow", "tiny"]
"""Sizes of the models on a device: those that are published, the same with few layers and small
pictures for CPUs, and small ones for tests."""
