"""Measures of each section, on a device by its type."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from multimodal_gen.benchmarks.device.cancelling import cancelling
from multimodal_gen.benchmarks.device.checks import pictures, products, recovery, streamed
from multimodal_gen.benchmarks.device.evaluation import measure_model
from multimodal_gen.benchmarks.device.graphs import graphs
from multimodal_gen.benchmarks.device.real_models import REAL_MODELS
from multimodal_gen.benchmarks.names import Scale
from multimodal_gen.benchmarks.report import Figure

_CHECKS: dict[str, Callable[[torch.device, Scale], Iterator[Figure]]] = {
    "pictures": pictures,
    "products": products,
    "streamed": streamed,
    "graphs": graphs,
    "recovery": recovery,
    "cancel": cancelling,
}


def measured(section: str, device: torch.device, scale: Scale) -> Iterator[Figure]:
    """Yield each figure as soon as it is known."""
    if (model := REAL_MODELS.get(section)) is not None:
        return measure_model(section, model, device, scale)
    return _CHECKS[section](device, scale)
