"""`multimodal-gen bench`: this engine against stock diffusers, printed as ratios of one run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from multimodal_gen.configs.server_args import Device, DType, ServerArgs


@dataclass(frozen=True, kw_only=True)
class BenchArgs:
    """What `bench` can be told."""

    model_path: str | None = None
    """A folder or hub name of a checkpoint in diffusers layout; unset: the bundled model."""
    device: Device = "auto"
    """cuda where there is one, else cpu."""
    dtype: DType = "auto"
    """auto is bfloat16 on cuda and float32 on a cpu."""
    only: tuple[str, ...] = ()
    """Of one_picture, concurrent, short_job, host_gap, help, cold_start, memory; unset: all."""
    repeats: int = 5
    """How often each thing is measured."""
    json: Path | None = None
    """A file for the report as JSON."""


def bench(args: BenchArgs) -> None:
    """Measure, and print the table; progress goes to standard error."""
    from multimodal_gen.benchmarks.driver import run_benchmark

    server = ServerArgs(model_path=args.model_path, device=args.device, dtype=args.dtype)
    report = run_benchmark(server, only=args.only, repeats=args.repeats, say=_say)
    if args.json is not None:
        args.json.write_bytes(report.to_json())
    print(report.table())


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
