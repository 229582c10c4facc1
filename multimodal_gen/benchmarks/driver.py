"""Runs the selected measures."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence

from multimodal_gen.benchmarks.measures import MEASURES
from multimodal_gen.benchmarks.names import LONG, MeasureName
from multimodal_gen.benchmarks.report import Report
from multimodal_gen.benchmarks.session import Session
from multimodal_gen.configs.arguments.engine_args import EngineArgs


def run_benchmark(
    args: EngineArgs, *, only: Sequence[MeasureName], repeats: int, say: Callable[[str], None]
) -> Report:
    """Measure what `only` names, or all that is not long; `say` receives progress messages."""
    figures = []
    with Session(args, repeats, say) as session:
        for name in only or [each for each in MEASURES if each not in LONG]:
            figures += MEASURES[name](session)
        return Report(environment=_environment(session), figures=figures)


def _environment(session: Session) -> dict[str, str | int]:
    model = session.model
    defaults = model.defaults
    environment: dict[str, str | int] = {
        "model": model.name,
        "size": f"{defaults.width}x{defaults.height}",
        "steps": defaults.num_inference_steps,
        "device": model.device,
        "dtype": model.dtype,
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
    }
    if session.used_diffusers:
        baseline = session.diffusers.loaded
        environment |= {"threads": baseline.threads, **baseline.versions}
    return environment
