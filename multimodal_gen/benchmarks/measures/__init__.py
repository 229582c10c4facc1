"""Measures of `multimodal-gen bench`, by the names that `--only` takes."""

from __future__ import annotations

from collections.abc import Callable

from multimodal_gen.benchmarks.measures.families import families
from multimodal_gen.benchmarks.measures.inside import host_gap, memory
from multimodal_gen.benchmarks.measures.pictures import concurrent, one_picture
from multimodal_gen.benchmarks.measures.qualities import qualities
from multimodal_gen.benchmarks.measures.real_size import options, real_size
from multimodal_gen.benchmarks.measures.short_job import short_job
from multimodal_gen.benchmarks.measures.start import cold_start, help_text
from multimodal_gen.benchmarks.names import MeasureName
from multimodal_gen.benchmarks.report import Figure
from multimodal_gen.benchmarks.session import Session

MEASURES: dict[MeasureName, Callable[[Session], list[Figure]]] = {
    "one_picture": one_picture,
    "concurrent": concurrent,
    "short_job": short_job,
    "host_gap": host_gap,
    "qualities": qualities,
    "families": families,
    "help": help_text,
    "cold_start": cold_start,
    "memory": memory,
    "options": options,
    "real_size": real_size,
}
