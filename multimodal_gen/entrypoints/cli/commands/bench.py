"""`multimodal-gen bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from multimodal_gen.benchmarks.names import MeasureName
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.entrypoints.cli.options.config_file import Config
from multimodal_gen.entrypoints.cli.options.option_groups import EngineFlags, EngineOptions
from multimodal_gen.errors import InvalidRequest


def bench(
    *,
    only: Annotated[tuple[MeasureName, ...], Parameter(consume_multiple=True)] = (),
    repeats: Annotated[int, Parameter(validator=Number(gte=1))] = 5,
    json: Path | None = None,
    profile: Path | None = None,
    config: Config = None,
    engine: EngineOptions = EngineFlags(),  # noqa: B008
) -> int:
    """Measure this engine against stock diffusers in one run, and print ratios.

    Both run in turn with the same checkpoint, dtype, threads and parameters. All prompts and seeds
    are different. With `--device cuda` alone, measure the GPU instead, in less than ten minutes:
    models of real sizes with random weights, and whether its results are right.

    Parameters
    ----------
    only
        Take only these measurements. Two are taken only if they are named: `families` measures
        layers of real widths, which needs minutes and 6 GB; `real_size` compares single
        evaluations of denoisers of real sizes, which takes long, and gigabytes.
    repeats
        Number of repetitions of each measurement.
    json
        File to write the report to, as JSON.
    profile
        File to write a timeline of one request to (a chrome trace); nothing else is measured.
    config
        YAML file with options.
    """
    args = EngineArgs.of(engine)
    _check_folders(json=json, profile=profile)
    if profile is not None:
        from multimodal_gen.benchmarks.profiling.profile import write_profile

        print(write_profile(args, profile, _say))
        return 0
    if args == EngineArgs(device="cuda") and not only:
        from multimodal_gen.benchmarks.device.runner import measure_device

        report = measure_device(args.device, "full", _say)
    else:
        from multimodal_gen.benchmarks.driver import run_benchmark

        report = run_benchmark(args, only=only, repeats=repeats, say=_say)
    if json is not None:
        json.write_bytes(report.to_json())
    print(report.table())
    return 1 if report.failures else 0


def _check_folders(**files: Path | None) -> None:
    """Raise InvalidRequest for a file that could not be written, before minutes are spent."""
    for name, file in files.items():
        if file is not None and not file.absolute().parent.is_dir():
            raise InvalidRequest(name, str(file), "must be in a folder that exists")


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
