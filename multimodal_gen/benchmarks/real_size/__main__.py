"""Measures one denoiser, or products: `python -m multimodal_gen.benchmarks.real_size NAME DTYPE
REPEATS [SCALE]`. Writes a list of figures to standard output, as JSON.

Evaluations of all sides take turns. Each has been run once before.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping

import diffusers
import msgspec
import torch

from multimodal_gen.benchmarks.names import Scale
from multimodal_gen.benchmarks.real_size.denoisers import REAL_DENOISERS
from multimodal_gen.benchmarks.real_size.products import product_figures
from multimodal_gen.benchmarks.real_size.sides import Sides
from multimodal_gen.benchmarks.report import Figure, ratio

_TARGET, _INT8_TARGET = 1.05, 0.6


def main(name: str, dtype: str, repeats: int, scale: Scale) -> None:
    # Libraries' output must not mix with the figures.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    diffusers.utils.logging.set_verbosity_error()
    with torch.inference_mode():
        if name == "products":
            figures = product_figures(repeats, scale)
        else:
            figures = model_figures(name, dtype, repeats, scale)
    output.write(msgspec.json.encode(figures))
    output.close()


def model_figures(name: str, dtype: str, repeats: int, scale: Scale) -> list[Figure]:
    """Compare both sides, eager and compiled; on models of ours in float32, int8 as well."""
    described = REAL_DENOISERS[name]
    sides = Sides(described, getattr(torch, dtype), tiny=scale == "tiny")
    calls: dict[str, Callable[[], object]] = {
        "diffusers": sides.diffusers(compiled=False),
        "ours": sides.ours(compiled=False),
    }
    if scale == "full":
        calls["diffusers compiled"] = sides.diffusers(compiled=True)
        calls["ours compiled"] = sides.ours(compiled=True)
    if described.native is not None and dtype == "float32":
        calls["int8"] = sides.ours(compiled=False, quantization="int8")
    times = in_turn(calls, repeats)
    what, called = f"one evaluation of {described.what}, {dtype}", f"real_size/{name}/{dtype}"
    figures = [_against(times, called, what, " compiled")] if scale == "full" else []
    figures.append(_against(times, f"{called}/eager", what, ""))
    if "int8" in times:
        int8, exact = times["int8"], times["ours"]
        told = f"{what}: with --quantization int8, relative to without"
        figures.append(ratio(f"real_size/{name}/int8", told, int8, exact, target=_INT8_TARGET))
    return figures


def in_turn(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, by its name."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return times


def _against(times: Mapping[str, list[float]], name: str, what: str, way: str) -> Figure:
    told = f"{what}: relative to diffusers{', both' if way else ''}{way}"
    return ratio(name, told, times[f"ours{way}"], times[f"diffusers{way}"], target=_TARGET)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), "tiny" if sys.argv[4:] == ["tiny"] else "full")
