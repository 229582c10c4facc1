"""Pictures for the autoencoder: drawings anywhere, at any size, on any background."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from artwork import read_icons, render
from concepts import held_out_artwork
from scenes import BACKGROUNDS, RENDERED, Placed, compose

SIDE = 96
SMALLEST = 56
SHADES = tuple(shade for shades in BACKGROUNDS.values() for shade in shades)


def make_pool(packages: Path, file: Path, count: int) -> None:
    """Write `count` pictures, uint8 [count, 96, 96, 3]."""
    icons = read_icons(packages)
    unseen = set(held_out_artwork(icons))
    drawings = [render(icon, RENDERED) for name, icon in icons.items() if name not in unseen]
    rng = np.random.default_rng(0)
    pool = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for i in range(count):
        drawing = drawings[i % len(drawings)]
        shade = "FFFFFF" if rng.random() < 0.4 else SHADES[rng.integers(len(SHADES))]
        size = int(rng.integers(SMALLEST, SIDE + 1))
        left, top = (int(offset) for offset in rng.integers(SIDE - size + 1, size=2))
        tilt = float(rng.uniform(-15, 15)) if rng.random() < 0.5 else 0.0
        pool[i] = compose([drawing], [Placed(size, left, top, tilt)], shade, SIDE, SIDE)
    np.save(file, pool)
