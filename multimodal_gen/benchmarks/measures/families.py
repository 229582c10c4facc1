"""Measures an evaluation of published models with random weights: operations, time, roofline."""

from __future__ import annotations

from multimodal_gen.benchmarks.device.runner import measure_device
from multimodal_gen.benchmarks.device.sections import MODELS
from multimodal_gen.benchmarks.names import Scale
from multimodal_gen.benchmarks.report import Figure
from multimodal_gen.benchmarks.session import Session


def families(session: Session) -> list[Figure]:
    """On a GPU at their full sizes; on a CPU, where these take minutes, a few layers of the
    published widths."""
    device = session.model.device
    scale: Scale = "full" if device == "cuda" else "shallow"
    report = measure_device(device, scale, session.say, MODELS)
    for name, reason in report.failures.items():
        session.say(f"{name}: not measured: {reason}")
    return report.figures
