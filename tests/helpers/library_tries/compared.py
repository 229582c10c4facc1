"""Runs a trial on both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from engineless import load, run

from . import TRIALS
from .trial import save


def difference(name: str, folder: Path) -> int:
    """The largest difference of a pixel between this engine and diffusers' own call.

    The checkpoint is written to `folder`. Raises AssertionError if the shapes differ, or if it is
    no fallback that runs.
    """
    trial = TRIALS[name]
    stock = trial.pipeline(name)
    loaded = load(save(stock, folder))
    assert loaded.family.name == "fallback"
    theirs, ours = trial.stock(stock), run(loaded, trial.request, trial.inputs).pixels
    assert ours.shape == theirs.shape
    assert ours.std() > 1
    return int(np.abs(ours.astype(int) - theirs.astype(int)).max())
