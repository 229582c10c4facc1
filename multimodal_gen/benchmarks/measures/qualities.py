"""Measures what step caches save, and how close their images are to exact ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from multimodal_gen.benchmarks.report import Figure, ratio, single
from multimodal_gen.benchmarks.session import Session
from multimodal_gen.client.request_handle import Output

TARGETS = {"high": (1.7, 45.0), "fast": (2.2, 40.0)}
"""Speed relative to exact, and mean PSNR in dB."""
PAIRS = 8
"""Images of each quality, as a multiple of the repeats."""
_IDENTICAL_DB = 99.0


def qualities(session: Session) -> list[Figure]:
    """Each quality but exact that the model has: speed, evaluations and likeness."""
    names = [name for name in session.model.qualities if name != "exact"]
    if not names:
        return []
    exact, *others = session.alternate("qualities", *map(_timed(session), ("exact", *names)))
    requests = session.workload.things(PAIRS * session.repeats)
    pictures = session.engine.outputs(requests)
    figures = []
    for name, seconds in zip(names, others, strict=True):
        again = [session.workload.again(each, quality=name) for each in requests]
        found = session.engine.outputs(again)
        session.say(f"qualities: {len(found)} images of {name}")
        figures += _figures(name, (exact, seconds), pictures, found)
    return figures


def _timed(session: Session) -> Callable[[str], Callable[[], float]]:
    workload = session.workload
    return lambda name: lambda: session.engine.seconds(workload.request(quality=name))


def _figures(
    name: str,
    seconds: tuple[Sequence[float], Sequence[float]],
    exact: Sequence[Output],
    found: Sequence[Output],
) -> list[Figure]:
    speed, least = TARGETS[name]
    what = f"seconds per single image, exact relative to {name}"
    psnrs = [_psnr(a.pixels, b.pixels) for a, b in zip(exact, found, strict=True)]
    evaluations = found[0].evaluations
    assert evaluations is not None
    share = evaluations.computed / (evaluations.computed + evaluations.extrapolated)
    return [
        ratio(f"qualities/{name}", what, *seconds, target=speed, bound="at least"),
        single(
            f"qualities/{name}/evaluations", "share of evaluations that are computed", share, "x"
        ),
        Figure(
            name=f"qualities/{name}/psnr",
            what=f"PSNR of {len(psnrs)} images against exact ones (mean; worst to best)",
            value=fmean(psnrs),
            unit="dB",
            low=min(psnrs),
            high=max(psnrs),
            target=least,
            bound="at least",
        ),
    ]


def _psnr(exact: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    error = np.square(exact.astype(np.float64) - other).mean()
    return 10 * math.log10(255**2 / error) if error else _IDENTICAL_DB
